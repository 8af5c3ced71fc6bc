"""Programs that run in a container of the api's image on a stack's network, started and ended from outside."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .project import Project, docker

HERE = Path(__file__).parent


def compose(project: Project, *arguments: str, timeout: float = 300) -> str:
    """A plain Compose command for the environment dev: for parts of a stack that need no deploy."""
    argv = ["docker", "compose", "--env-file", "config/dev/.env", *arguments]
    done = subprocess.run(argv, cwd=project.folder, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def container(project: Project, service: str) -> str:
    """Name of a service's container."""
    return f"{project.name()}-{service}-1"


def load(*names: str) -> tuple[float, float]:
    """Memory (MiB) and processor time (percent of one core) that containers take together at this moment."""
    memory, processor = 0.0, 0.0
    for line in docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.CPUPerc}}", *names).splitlines():
        used, _, _, percent = line.split()
        memory += float(used.removesuffix("MiB"))
        processor += float(percent.removesuffix("%"))
    return memory, processor


class Client:
    """One program at work: its input's end is the signal to stop."""

    def __init__(self, project: Project, script: str, *arguments: str, network: str = "") -> None:
        settings = project.settings()
        prefix = settings["IMAGE_PREFIX"]
        secrets = project.folder / "config/dev/secrets"
        mounts = [f"{secrets / name}:/run/secrets/{name}:ro" for name in ("REDIS_PASSWORD", "RABBITMQ_PASSWORD")]
        self.name = f"{project.name()}-client-{id(self):x}"
        # A file, because a pipe that nobody reads meanwhile would hold the program up.
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                *("docker", "run", "--rm", "--interactive", "--name", self.name),
                *("--network", network or f"{project.name()}_database"),
                *("--volume", f"{HERE / script}:/client.py:ro"),
                *(part for mount in mounts for part in ("--volume", mount)),
                *("--entrypoint", "python", f"{prefix}/api:dev", "/client.py", *arguments),
            ],
            stdin=subprocess.PIPE, stdout=self._output, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self, timeout: float = 60) -> str:
        """Let it stop, and return what it has printed."""
        _, errors = self._process.communicate(timeout=timeout)
        assert self._process.returncode == 0, errors
        self._output.seek(0)
        return self._output.read()

    def kill(self) -> None:
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True)
        self._process.communicate()


@contextmanager
def running(project: Project, script: str, *arguments: str, network: str = "") -> Iterator[Client]:
    """A client that does not outlive the block."""
    client = Client(project, script, *arguments, network=network)
    try:
        yield client
    finally:
        if client._process.poll() is None:
            client.kill()


def once(project: Project, script: str, *arguments: str) -> str:
    """What a program prints that ends by itself."""
    with running(project, script, *arguments) as client:
        return client.end(120)
