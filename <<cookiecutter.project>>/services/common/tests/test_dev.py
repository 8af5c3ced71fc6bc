"""The dev image's process: it ends with its service, and passes signals on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """Starts it over a copy of the sources whose service is this script."""
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str) -> subprocess.Popen[bytes]:
        stack = tmp_path / "stack"
        stack.mkdir()
        (stack / "__init__.py").write_text("")
        (stack / "dev.py").write_text((SERVICES / "common/stack/dev.py").read_text())
        (stack / "__main__.py").write_text(script)
        variables = {**os.environ, "PYTHONPATH": str(tmp_path), "READY": str(tmp_path / "ready")}
        started.append(subprocess.Popen([sys.executable, "-m", "stack.dev"], env=variables))
        return started[-1]

    yield run
    for each in started:
        each.kill()
        each.wait()


def wait_for(path: Path, seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_service_that_crashes_ends_it(start) -> None:
    """Then the engine counts restarts, and a deploy need not wait until its time is up."""
    assert start("import sys; sys.exit(3)").wait(20) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_service(start, tmp_path: Path, number: signal.Signals) -> None:
    process = start(
        "import os, signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(7))\n"
        "open(os.environ['READY'], 'w').close()\n"
        "time.sleep(60)\n"
    )
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    assert process.wait(20) == 7


def test_a_changed_file_starts_it_again(start, tmp_path: Path) -> None:
    process = start("import os, time; open(os.environ['READY'], 'w').close(); time.sleep(60)")
    wait_for(tmp_path / "ready")
    (tmp_path / "ready").unlink()
    # Until its watcher has begun nothing is seen.
    time.sleep(1)
    (tmp_path / "stack" / "changed.py").write_text("")
    wait_for(tmp_path / "ready")
    assert process.poll() is None
