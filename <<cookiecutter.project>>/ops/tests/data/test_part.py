"""One-off containers of the part `backup`: what they answer, and what they complain of."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base.errors import REFUSED, OpsError
from ops.data import part
from ops.stack.model import Service


@pytest.fixture
def container(monkeypatch):
    """What the container does, as a program of Python."""

    def be(program: str) -> None:
        monkeypatch.setattr(part, "argv", lambda *_: [sys.executable, "-c", program])
        monkeypatch.setattr(part, "surroundings", lambda _env: {})

    return be


def test_it_ends_with_its_command_and_is_found_when_that_was_killed(env) -> None:
    line = part.argv(env, ["materialize", "latest"], ["a:/b"])
    assert line[line.index("run") :] == [
        *("run", "--rm", "--no-deps", "--no-TTY", "--quiet-pull", "--label", "ops.restore.work=acme-dev"),
        *("--volume", "a:/b", "backup-verify", "materialize", "latest", "--attended", "--json"),
    ]


def test_its_document_comes_back_and_its_log_is_progress(env, container) -> None:
    container('import sys; print(\'{"a": 1}\'); print(\'{"event": "recovering"}\\nplain\', file=sys.stderr)')
    ticks: list[str] = []
    assert part.call(env, ["x"], ticks.append) == {"a": 1}
    assert ticks == ["recovering", "plain"]


def test_nothing_is_left_of_it_after_an_interruption(env, container, monkeypatch) -> None:
    """Not even of a backup by hand, which outlives a command that is killed."""
    # As much as is read at once, so that it is heard before the program ends.
    container("import os, time; os.write(1, b'x' * (1 << 20)); time.sleep(60)")
    ended = []
    monkeypatch.setattr(engine, "docker", lambda *argv, **_: ended.append(argv))

    class Interrupted(io.BytesIO):
        def write(self, _data) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part.call(env, ["take"], lambda _: None, sink=Interrupted(), service="backup", attended=False)
    (stop, name), (*remove, same) = ended
    assert (stop, *remove) == ("stop", "rm", "--force", "--volumes") and name == same
    assert name.startswith("acme-dev-backup-")


def test_an_archive_goes_to_its_file(env, container) -> None:
    container("import sys; sys.stdout.buffer.write(bytes(3 << 20))")
    sink = io.BytesIO()
    assert part.call(env, ["x"], lambda _: None, sink=sink) is None
    assert sink.getvalue() == bytes(3 << 20)


@pytest.mark.parametrize("sink", [None, io.BytesIO()])
def test_its_error_is_ours(env, container, sink) -> None:
    error = OpsError("The key is wrong.", "Take the other one.", REFUSED)
    container(f"print({json.dumps(error.as_json())}); raise SystemExit(3)")
    with pytest.raises(OpsError, match="The key is wrong") as caught:
        part.call(env, ["x"], lambda _: None, sink=sink)
    assert (caught.value.remedy, caught.value.code) == ("Take the other one.", REFUSED)


def test_whatever_else_ends_it_is_told_with_its_last_word(env, container) -> None:
    container("import sys; print('something'); print('no such image', file=sys.stderr); raise SystemExit(125)")
    with pytest.raises(OpsError, match="exit code 125: no such image"):
        part.call(env, ["x"], lambda _: None)


def test_it_hears_when_the_command_ends(env, container) -> None:
    """Its standard input stays open as long as the command waits, and not longer."""
    container("import sys, select; print(len(select.select([0], [], [], 0.3)[0]))")
    assert part.call(env, ["x"], lambda _: None) == 0


def test_a_stack_without_the_part_is_told_what_to_do(env, make_stack) -> None:
    with pytest.raises(OpsError, match="does not name docker-compose.backup.yml") as caught:
        part.require(env, make_stack())
    assert caught.value.code == REFUSED


def test_containers_of_a_killed_command_are_removed(env, monkeypatch) -> None:
    lines = []
    monkeypatch.setattr(engine, "docker", lambda *line, **_: lines.append(line) or SimpleNamespace(stdout="abc\ndef\n"))
    part.remove_left(env)
    assert lines[1] == ("rm", "--force", "abc", "def")


ATTENDED = """
import sys, time
from ops.recovery.attended import attended
try:
    with attended(True):
        print("ready", flush=True)
        time.sleep(30)
except KeyboardInterrupt:
    print("cleaned up", flush=True)
"""


def test_a_container_whose_command_was_killed_cleans_up() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", ATTENDED], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout and child.stdin
        assert child.stdout.readline() == "ready\n"
        child.stdin.close()
        assert child.stdout.readline() == "cleaned up\n"
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


def test_every_checkout_sees_the_folder_of_the_one_that_was_deployed(env, make_container, monkeypatch) -> None:
    here = env.project_dir / "backups" / env.name / "repository"
    deployed = make_container("wal-receiver", mounts={"/backups": "/elsewhere/backups/dev/repository"})
    monkeypatch.setattr(engine, "containers", lambda _: [make_container("web"), deployed])
    assert part.surroundings(env)["environment"]["BACKUP_FOLDER"] == "/elsewhere/backups/dev/repository"
    monkeypatch.setattr(engine, "containers", lambda _: [])
    with pytest.raises(OpsError, match="repository is not there") as refused:
        part.surroundings(env)
    assert refused.value.code == REFUSED and "invoke deploy" in refused.value.remedy
    here.mkdir(parents=True)
    assert part.folder(env) == str(here)


def test_an_image_that_is_there_is_not_made(env, make_stack, monkeypatch) -> None:
    declared = make_stack(Service("backup-verify", "acme/backup"))
    monkeypatch.setattr(engine, "image_ids", lambda names: dict.fromkeys(names, "abc"))
    part.make_image(env, declared, lambda _: pytest.fail("it makes one"))
    monkeypatch.setattr(engine, "image_ids", lambda _: {})
    failed = SimpleNamespace(ok=False, stderr="no space left on device")
    monkeypatch.setattr(engine, "compose", lambda *_, **__: failed)
    ticks: list[str] = []
    with pytest.raises(OpsError, match="no space left|full"):
        part.make_image(env, declared, ticks.append)
    assert ticks == ["building acme/backup"]
