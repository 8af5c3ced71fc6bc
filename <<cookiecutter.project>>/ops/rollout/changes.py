"""What differs between what is declared and what exists, service by service.

Compose compares a service's configuration and image, and is blind to the content of mounted files and secrets; how a
container differs is therefore told by ops/state/drift.py. What a deploy does about it is decided in plan.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ops.engine import Container
from ops.parts import routes
from ops.stack.model import Service, Stack
from ops.state.drift import LEFT_BEHIND, NEW_CONFIGURATION, NEW_IMAGE, Drift

# Services that take a changed configuration without a restart. A changed start script still needs a new container.
RELOADABLE = frozenset(routes.READERS)
# Compose names a replacement like this until the container it replaces is gone; left behind by an interruption.
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{12}_(?P<name>.+)")

CREATE = "create"
RECREATE = "recreate"
SCALE = "scale"
START = "start"
RELOAD = "reload"
RUN = "run"
# A job that is at work: an earlier deploy began it.
RUNNING = "running"
UNCHANGED = "unchanged"
# Compose sees no difference, but a mounted file has changed: a new container has to be asked for.
REFRESH = "refresh"


class Change(NamedTuple):
    """How a service differs, and why."""

    service: str
    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Changes:
    """Changes by service, and the ids of containers that are not as declared; containers to remove, and left-over
    temporary containers by what to do with them."""

    services: dict[str, Change]
    outdated: frozenset[str] = frozenset()
    orphans: tuple[Container, ...] = ()
    discard: tuple[Container, ...] = ()
    rename: tuple[tuple[Container, str], ...] = ()


def compare(
    stack: Stack,
    containers: Sequence[Container],
    drifts: Mapping[str, Drift],
) -> Changes:
    """What differs, from what is declared, what exists, and how each container of a declared service differs, by id."""
    discard, rename = _temporary(containers)
    aside = {each.id for each in discard}
    by_service: dict[str, list[Container]] = {name: [] for name in stack.services}
    orphans = []
    for container in containers:
        if container.service not in by_service:
            orphans.append(container)
        elif container.id not in aside:
            by_service[container.service].append(container)
    changes: dict[str, Change] = {}
    outdated: set[str] = set()
    for name, service in stack.services.items():
        mine = by_service[name]
        if name in stack.scheduled:
            changes[name] = Change(name, *_scheduled(mine, drifts))
            continue
        if service.on_demand:
            changes[name] = Change(name, UNCHANGED)
            continue
        if service.one_shot:
            changes[name] = Change(name, *_one_shot(mine, drifts))
            continue
        outdated.update(each.id for each in mine if drifts[each.id].reason)
        changes[name] = Change(name, *_change(service, mine, [drifts[each.id] for each in mine]))
    return Changes(
        changes,
        frozenset(outdated),
        tuple(each for each in orphans if each.id not in aside),
        tuple(discard),
        tuple(rename),
    )


def _change(service: Service, containers: Sequence[Container], drifts: Sequence[Drift]) -> tuple[str, str]:
    """Kind and reason for one lasting service. drifts: how each of its containers differs."""
    if not containers:
        return (CREATE, "") if service.replicas else (UNCHANGED, "")
    if not service.replicas:
        return SCALE, f"{len(containers)} -> 0"
    reasons = {each.reason for each in drifts if each.reason}
    # What weighs most is told first.
    for reason in (NEW_CONFIGURATION, NEW_IMAGE, LEFT_BEHIND):
        if reason in reasons:
            return RECREATE, reason
    if reasons:
        changed = [path for each in drifts for path in each.files]
        # Only files of this folder have changed: a container that mounts another one's finds nothing new in them.
        here = not any(each.elsewhere for each in drifts)
        reload = service.name in RELOADABLE and here and not any(path.endswith(".sh") for path in changed)
        # One that keeps restarting would not hear it.
        whole = len(containers) == service.replicas and all(each.running and not each.looping for each in containers)
        return (RELOAD if reload and whole else REFRESH), min(reasons)
    if len(containers) != service.replicas:
        return SCALE, f"{len(containers)} -> {service.replicas}"
    stopped = [each for each in containers if each.state in {"created", "exited", "dead"}]
    return (START, f"was {stopped[0].state}") if stopped else (UNCHANGED, "")


def _one_shot(containers: Sequence[Container], drifts: Mapping[str, Drift]) -> tuple[str, str]:
    """A job runs again when it never ended well in its present form."""
    if not containers:
        return RUN, "never ran"
    last = containers[-1]
    if last.running:
        return RUNNING, "still running since an earlier deploy"
    if drifts[last.id].configuration:
        return RUN, NEW_CONFIGURATION
    if drifts[last.id].image:
        return RUN, NEW_IMAGE
    if last.state != "exited" or last.exit_code:
        return RUN, "did not end well last time"
    return UNCHANGED, ""


def _scheduled(containers: Sequence[Container], drifts: Mapping[str, Drift]) -> tuple[str, str]:
    """A scheduled job needs a container that the scheduler can start; files are mounted anew with every start."""
    if not containers:
        return CREATE, ""
    for each in containers:
        if drifts[each.id].configuration:
            return RECREATE, NEW_CONFIGURATION
        if drifts[each.id].image:
            return RECREATE, NEW_IMAGE
    return UNCHANGED, ""


def _temporary(containers: Sequence[Container]) -> tuple[list[Container], list[tuple[Container, str]]]:
    """Containers that an interrupted Compose left under a temporary name: those to remove, and those to rename."""
    names = {each.name for each in containers}
    discard, rename = [], []
    for container in containers:
        if match := _TEMPORARY_NAME.fullmatch(container.name):
            if container.state == "created" or match["name"] in names:
                discard.append(container)
            else:
                rename.append((container, match["name"]))
    return discard, rename
