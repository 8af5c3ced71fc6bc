"""What `invoke health` asks: a probe looks at one thing right now, and says what it found as checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.engine import Container
from ops.stack.model import Stack

Status = Literal["ok", "warn", "fail"]

# A probe that takes longer is an answer by itself. The longest wait inside one is WRITE_SECONDS, twice.
PROBE_SECONDS = 10
# How long a write may take to reach the replica. Milliseconds are usual.
WRITE_SECONDS = 2


@dataclass(frozen=True)
class Check:
    """One answer. name: of the kind of probe; target: what was asked; seconds: how long that took."""

    name: str
    target: str
    status: Status
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Probe:
    """Something to ask. `ask` may raise: then what was asked has failed."""

    name: str
    target: str
    ask: Callable[[], Iterable[Check]]


@dataclass(frozen=True)
class Seen:
    """What probes are derived from: an environment, its containers, and its declaration, which takes longer to read."""

    env: Environment
    containers: Sequence[Container]
    declaration: Future[Stack]

    @property
    def declared(self) -> Stack:
        """What is declared; waits until it has been read. Raises OpsError when it does not resolve."""
        return self.declaration.result()

    def running(self, *services: str) -> list[Container]:
        """The running containers of some services, in their order."""
        return [each for name in services for each in self.containers if each.service == name and each.running]


def output(container: Container, *argv: str, input: str | None = None) -> str:
    """What a command in a container prints; its complaint as OpsError when it fails."""
    done = engine.exec_(container.id, argv, input=input, check=False, timeout=PROBE_SECONDS)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(
            engine.reason(done.stderr or done.stdout, f"exit code {done.code}")
        )
    return done.stdout


def judge_owned(name: str, env: Environment, owners: Sequence[str], missing: Iterable[Sequence[str]]) -> Check:
    """Whether a part has what services own there. owners: their names; missing: what each of them lacks, in words."""
    if causes := [cause for each in missing for cause in each]:
        more = f" and {len(causes) - 1} more" if len(causes) > 1 else ""
        return Check(name, "services", "fail", f"{causes[0]}{more}: invoke deploy --env {env.name}")
    return Check(name, "services", "ok", f"as the services {', '.join(owners)} declare it")
