"""The parts of a stack. What each one is, it says in its own module; a new one is added here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ops.parts import backups, host, monitoring, readiness
from ops.parts.haproxy import health as haproxy
from ops.parts.nginx import health as nginx
from ops.parts.postgres import health as postgres
from ops.parts.probes import Probe, Seen
from ops.parts.rabbitmq import health as rabbitmq
from ops.parts.redis import health as redis


@dataclass(frozen=True)
class Part:
    """A part of a stack. title: as reports call it; probes: what its health asks of a stack."""

    title: str
    probes: Callable[[Seen], Iterator[Probe]]


# In the order of reports.
PARTS = tuple(
    Part(each.TITLE, each.probes)
    for each in (readiness, postgres, redis, rabbitmq, nginx, haproxy, backups, host, monitoring)
)
# Those whose probes need the declaration ask last: meanwhile it is read.
_NEED_DECLARATION = {readiness.TITLE, monitoring.TITLE}


def probes(seen: Seen) -> Iterator[tuple[Part, Probe]]:
    """Every probe of every part, those first that need to wait for nothing."""
    for part in sorted(PARTS, key=lambda part: part.title in _NEED_DECLARATION):
        for probe in part.probes(seen):
            yield part, probe
