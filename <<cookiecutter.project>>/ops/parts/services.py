"""The services while their data is replaced underneath them: away, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.stack.model import Stack

# As long as a deploy waits for the same services.
HEALTHY_SECONDS = 180


def of(declared: Stack, containers: Iterable[Container]) -> list[Container]:
    """The containers that use the data tier, and so must not run while its data is replaced (see Stack.clients).

    One that nothing declares any more may write as well.
    """
    return [each for each in containers if each.service in declared.clients or each.service not in declared.services]


def stop_jobs(env: Environment, declared: Stack) -> None:
    """Stop the jobs of the owner that are at work, and what runs by `invoke run`: they may use the data tier as well.

    To be called when the scheduler is away. They are not started again.
    """
    found = [
        *(each for each in engine.containers(env) if (service := declared.services.get(each.service)) and service.job),
        *(each for each in engine.one_offs(env) if (service := declared.services.get(each.service)) and service.own),
    ]
    stop([each for each in found if each.running])


def names(containers: Iterable[Container]) -> str:
    """The services of containers, for a sentence."""
    return ", ".join(dict.fromkeys(each.service for each in containers)) or "no service"


def stop(containers: Sequence[Container]) -> None:
    """Stop containers, each within its own grace period."""
    if containers:
        engine.docker("stop", *(each.id for each in containers), timeout=None)


def start(containers: Sequence[Container]) -> None:
    """Start containers that exist; those that run go on."""
    if containers:
        engine.docker("start", *(each.id for each in containers))


def wait_healthy(containers: Sequence[Container]) -> None:
    """Wait until all are healthy. Raises OpsError naming those that are not in time."""

    def unready() -> list[Container]:
        current = map(engine.container, engine.inspect([each.id for each in containers]))
        return [each for each in current if not each.ready]

    if late := until(unready, HEALTHY_SECONDS, 0.5, accept=lambda late: not late):
        names = ", ".join(f"{each.name} ({each.health or each.state})" for each in late)
        raise OpsError(f"Not healthy after {HEALTHY_SECONDS} s: {names}.", f"invoke logs --service {late[0].service}")
