"""Where the data of an environment is: what `backup` and `restore` need of it beside the servers, which they ask
themselves. On one host here; a cluster does the same by other means (ops/kubernetes/data.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import IO, Any, Protocol

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.data import part
from ops.engine import Completed, Container
from ops.parts import services
from ops.parts.nginx import edge
from ops.stack.model import Stack
from ops.stack.owned import Volume

# Where a volume is for a script.
FOLDER = "/volume"

Tick = Callable[[str], None]


class Site(Protocol):
    """One host, or a cluster."""

    # ── what runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def containers(self) -> list[Container]:
        """The containers of the environment; those of the data tier also while they do not run."""

    def make(self, names: Sequence[str]) -> None:
        """Make the containers of services of the data tier that are missing. Raises OpsError."""

    def clients(self, declared: Stack, containers: Sequence[Container]) -> list[Container]:
        """What uses the data tier, and must not run while its data is replaced; for `stop` and `start`."""

    def ran(self, containers: Sequence[Container]) -> Collection[str]:
        """The services that run, and the jobs that have run."""

    def stop(self, containers: Sequence[Container]) -> None:
        """Stop containers, each within its own grace period, and wait until they have."""

    def start(self, containers: Sequence[Container]) -> None:
        """Start what was stopped; what runs goes on."""

    def wait_healthy(self, containers: Sequence[Container]) -> None:
        """Wait until all are healthy. Raises OpsError naming those that are not in time."""

    def stop_jobs(self, declared: Stack) -> None:
        """Stop the owner's jobs and what runs by `invoke run`; they are not started again."""

    def migrate(self, job: str, variables: Mapping[str, str]) -> Completed:
        """Run a migration to its end, with other variables than it has."""

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def existing(self, volumes: Sequence[Volume]) -> list[Volume]:
        """Those volumes that there are."""

    def in_volume(self, declared: Stack, volume: Volume, script: str) -> list[str]:
        """Command line that runs a shell script in a volume, with standard input."""

    def alike(self, source: str, target: str) -> str:
        """Shell command for a script in a volume that gives a folder the owner and the mode of another one."""

    def beside(self, service: str, script: str) -> None:
        """Run a shell script with the volumes of a service that is stopped. Raises OpsError."""

    # ── the part `backup` ─────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, declared: Stack, tick: Tick) -> None:
        """See to it that the part can be called. Raises OpsError."""

    def call(
        self,
        arguments: Sequence[str],
        tick: Tick,
        *,
        sink: IO[bytes] | None = None,
        service: str = part.SERVICE,
        attended: bool = True,
        verdict: bool = False,
    ) -> Any:
        """Run a command of ops.recovery, as `part.call` does."""

    def remove_left(self) -> None:
        """Remove what commands that were killed have left. The caller holds the lock."""


class Host:
    """One host: the engine of this machine."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def containers(self) -> list[Container]:
        return engine.containers(self._env)

    def make(self, names: Sequence[str]) -> None:
        engine.compose(self._env, "up", "--no-start", "--no-recreate", "--no-build", *names, timeout=None)

    def clients(self, declared: Stack, containers: Sequence[Container]) -> list[Container]:
        return services.of(declared, containers)

    def ran(self, containers: Sequence[Container]) -> Collection[str]:
        return {each.service for each in containers}

    def stop(self, containers: Sequence[Container]) -> None:
        services.stop(containers)

    def start(self, containers: Sequence[Container]) -> None:
        services.start(containers)

    def wait_healthy(self, containers: Sequence[Container]) -> None:
        services.wait_healthy(containers)

    def stop_jobs(self, declared: Stack) -> None:
        services.stop_jobs(self._env, declared)

    def migrate(self, job: str, variables: Mapping[str, str]) -> Completed:
        options = (word for key, value in variables.items() for word in ("--env", f"{key}={value}"))
        arguments = ("run", "--rm", "--no-deps", "--no-TTY", *options, job)
        return engine.compose(self._env, *arguments, check=False, timeout=None)

    def existing(self, volumes: Sequence[Volume]) -> list[Volume]:
        found = {each["Name"] for each in engine.inspect([each.real for each in volumes], "volume")}
        return [each for each in volumes if each.real in found]

    def in_volume(self, declared: Stack, volume: Volume, script: str) -> list[str]:
        return in_volume(declared, volume, script)

    def alike(self, source: str, target: str) -> str:
        return f"chown --reference={source} {target}; chmod --reference={source} {target}"

    def beside(self, service: str, script: str) -> None:
        checked(one_off_argv(self._env, service, script), service, **engine.surroundings(self._env))

    def prepare(self, declared: Stack, tick: Tick) -> None:
        part.make_image(self._env, declared, tick)

    def call(self, arguments: Sequence[str], tick: Tick, **options: Any) -> Any:
        return part.call(self._env, arguments, tick, **options)

    def remove_left(self) -> None:
        part.remove_left(self._env)


def in_volume(declared: Stack, volume: Volume, script: str) -> list[str]:
    """Command line that runs a shell script in a volume, with stdin, in a container of its own.

    Not in one of a service: its image may have no tar, and its memory is for its work. The image is nginx's, which is
    on the engine by now. As root, so that every file can be read and keeps its owner, with no other right. nocopy: an
    empty volume would otherwise get the owner that the folder has in this image.
    """
    rights = (word for right in ("CHOWN", "DAC_OVERRIDE", "FOWNER") for word in ("--cap-add", right))
    return engine.docker_argv(
        *("run", "--rm", "--interactive", "--network", "none", "--read-only", "--user", "0:0", "--cap-drop", "ALL"),
        *rights,
        *("--security-opt", "no-new-privileges", "--volume", f"{volume.real}:{FOLDER}:nocopy", "--workdir", FOLDER),
        *("--entrypoint", "sh", declared.services[edge.SERVICE].image, "-c", f"set -eu; {script}"),
    )


def one_off_argv(env: Environment, service: str, script: str) -> list[str]:
    """Command line that runs a shell script with the volumes of a service, beside its containers."""
    options = ("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh")
    return engine.compose_argv(env, *options, service, "-c", script)


def checked(argv: Sequence[str], what: str, **options: Any) -> str:
    """What a command prints. Raises OpsError with its complaint when it fails. what: it is about, for that."""
    done = engine.run(argv, check=False, timeout=None, **options)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{what}: {complaint(done.stderr or done.stdout)}")
    return done.stdout


def complaint(text: str) -> str:
    """The line of an error output that says what is wrong."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "fatal", "cannot", "no space"))]
    return (telling or lines or ["it gave no reason"])[0]
