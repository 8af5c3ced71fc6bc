"""What a test cluster is called and where it lies: addresses, names, folders, and the processes that belong to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import programs

SECONDS_TO_STOP = 15


@dataclass(frozen=True)
class Lab:
    """A cluster's identity. number: the second one of its addresses (10.NUMBER.0.0/24); two numbers, two clusters."""

    number: int = 77

    @property
    def folder(self) -> Path:
        """Everything that this cluster has on disk."""
        return programs.home() / "clusters" / str(self.number)

    @property
    def hub(self) -> str:
        """The network namespace that is the switch; the control plane and the registry run in it too."""
        return f"cluster{self.number}"

    @property
    def server(self) -> str:
        """The hub's address, for nodes and for this machine."""
        return f"10.{self.number}.0.254"

    @property
    def host(self) -> str:
        """This machine's address among the nodes."""
        return f"10.{self.number}.0.253"

    @property
    def registry(self) -> str:
        """What images are called here and on the nodes: the door of the registry that Docker pushes to."""
        return f"127.0.0.1:{15000 + self.number}"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.pki / "admin.conf"

    @property
    def pki(self) -> Path:
        """Keys, certificates and one kubeconfig for each program."""
        return self.folder / "pki"

    @property
    def logs(self) -> Path:
        """One file for each program."""
        return self.folder / "logs"

    def node(self, number: int) -> str:
        """The name of a node."""
        return f"n{number}"

    def address(self, node: str) -> str:
        """Where a node answers."""
        return f"10.{self.number}.0.{10 + int(node.removeprefix('n'))}"

    def pods(self, node: str) -> str:
        """The network of the pods of a node."""
        return f"10.244.{node.removeprefix('n')}.0/24"

    def in_hub(self, *command: str | Path) -> list[str]:
        """A command line that runs in the hub."""
        return ["ip", "netns", "exec", self.hub, *map(str, command)]

    def begin(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> int:
        """Start a program that outlives this one, note its process id, and return that."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self.note(name, process.pid)
        return process.pid

    def note(self, name: str, pid: int) -> None:
        """Remember that a process is ours."""
        (self.folder / "pids").mkdir(parents=True, exist_ok=True)
        (self.folder / "pids" / name).write_text(f"{pid} {started(pid)}", encoding="utf-8")

    def pid(self, name: str) -> int | None:
        """The process that was begun under a name, if it still is the same one."""
        file = self.folder / "pids" / name
        if not file.is_file():
            return None
        pid, _, since = file.read_text(encoding="utf-8").partition(" ")
        return int(pid) if since and started(int(pid)) == since else None

    def noted(self) -> list[str]:
        """The names of all processes of ours, the newest first."""
        files = (self.folder / "pids").glob("*")
        return [file.name for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)]

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a process of ours and wait until it is gone."""
        if (pid := self.pid(name)) is not None:
            os.kill(pid, how)
            if not wait_for(lambda: self.pid(name) is None, SECONDS_TO_STOP):
                os.kill(pid, signal.SIGKILL)
        (self.folder / "pids" / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove everything that this cluster has on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def started(pid: int) -> str:
    """When a process was started, as the kernel counts; "" when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def wait_for(condition: Callable[[], object], seconds: float, pause: float = 0.1) -> bool:
    """Whether something came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def run(*command: str | Path, input: str | None = None, check: bool = True, folder: Path | None = None) -> str:
    """Run a command and return what it printed. Raises Unavailable with its errors when it fails and may not."""
    done = subprocess.run(list(map(str, command)), input=input, cwd=folder, capture_output=True, text=True)
    if check and done.returncode:
        text = f"{done.stdout}{done.stderr}".strip()
        raise programs.Unavailable(f"{' '.join(map(str, command))} failed ({done.returncode}): {text}")
    return done.stdout
