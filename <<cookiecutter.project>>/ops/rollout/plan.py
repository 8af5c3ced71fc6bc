"""What a deploy does, decided in one place and before anything is touched, as data.

A plan is a row of small operations in the order in which they are carried out, each about one service or image and with
its cause. `invoke deploy --plan` prints it (preview.py), a deploy executes it and then looks once more (deploy.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

from ops.engine import Container
from ops.parts import routes
from ops.parts.haproxy import pool
from ops.parts.nginx import edge
from ops.rollout import changes
from ops.rollout.changes import Change, Changes
from ops.rollout.observe import Survey
from ops.rollout.roll import Move, move
from ops.stack import differences, images, pools
from ops.stack.model import Stack
from ops.state.drift import NEW_CONFIGURATION, NEW_IMAGE, PROBATION, Drift


class Phase(IntEnum):
    """When an operation is carried out. What stands in one phase belongs together, and is done together."""

    IMAGES = 1
    RUNNING_JOBS = 2  # of an earlier deploy: how they end is not known yet
    TIDY = 3
    PROVISION = 4  # in a data tier that runs: before it restarts with rules that let in only who was made before
    DATA_TIER = 5
    PROVISION_NEW = 6  # in one that did not run
    JOBS = 7
    EDGE = 8  # nginx and HAProxy: whatever is rolled out is taken in and out by them
    ROLLOUT = 9
    SERVICES = 10
    SCHEDULED_JOBS = 11
    MONITORING = 12
    LEFTOVERS = 13  # what they are no longer needed by may have been replaced only now


# What these bring is known only when they are done: then the rest is decided anew.
FIRST = (Phase.IMAGES, Phase.RUNNING_JOBS)


@dataclass(frozen=True)
class Operation:
    """One thing that a deploy does. subject: the service it is about, or the image that is pulled; causes: why.

    word, done: what it does, and what it did, for people. replaces: whether a container of the service is another one
    afterwards. asks: whether a person is asked first.
    """

    phase: Phase
    subject: str
    causes: tuple[str, ...] = ()

    word: ClassVar[str] = ""
    done: ClassVar[str] = ""
    replaces: ClassVar[bool] = True
    asks: ClassVar[bool] = False

    @property
    def cause(self) -> str:
        """Why, in one line."""
        first, *more = self.causes or ("",)
        return f"{first} and {len(more)} more" if more else first


@dataclass(frozen=True)
class Pull(Operation):
    """Pull an image that is not on the engine."""

    word, done, replaces = "pull", "pulled", False


@dataclass(frozen=True)
class Build(Operation):
    """Build an image of ours."""

    image: images.OwnImage = field(kw_only=True)
    word, done, replaces = "build", "built", False


@dataclass(frozen=True)
class Tag(Operation):
    """Give an image of ours that was built before the name that is deployed."""

    image: images.OwnImage = field(kw_only=True)
    word, done, replaces = "tag", "tagged", False


@dataclass(frozen=True)
class AwaitJob(Operation):
    """Wait for a job that an earlier deploy began."""

    container: str = field(kw_only=True)
    word, done, replaces = "wait for", "ended", False


@dataclass(frozen=True)
class Remove(Operation):
    """Stop and remove containers: of a service that nothing declares, or left behind by an interruption."""

    containers: tuple[str, ...] = field(kw_only=True)
    word, done = "remove", "removed"


@dataclass(frozen=True)
class Rename(Operation):
    """Give a container the name that it should have got."""

    container: str = field(kw_only=True)
    name: str = field(kw_only=True)
    word, done, replaces = "rename", "renamed", False


@dataclass(frozen=True)
class Create(Operation):
    """Create the containers of a service that has none."""

    word, done = "create", "created"


@dataclass(frozen=True)
class Scale(Operation):
    """Run another number of containers of a service that cannot be rolled out, or does not run."""

    word, done = "scale", "scaled"


@dataclass(frozen=True)
class Start(Operation):
    """Start containers that exist and are as declared."""

    word, done, replaces = "start", "started", False


@dataclass(frozen=True)
class Replace(Operation):
    """Replace the containers of a service. running: whether it is in use, so that it is replaced by itself."""

    running: bool = field(kw_only=True)
    word, done = "replace", "replaced"


@dataclass(frozen=True)
class Restart(Replace):
    """Replace a container that is in use and that nothing can stand in for: the data tier, and nginx."""

    word, asks = "restart", True


@dataclass(frozen=True)
class Provision(Operation):
    """Make what a service owns in a part of the data tier: roles, schemas and databases, or users and queues."""

    part: str = field(kw_only=True)
    word, done, replaces = "provision", "provisioned", False


@dataclass(frozen=True)
class Run(Operation):
    """Run a job to its end."""

    word, done = "run", "ran"


@dataclass(frozen=True)
class Schedule(Operation):
    """Make the container of a scheduled job, for the scheduler to start. containers: what it replaces."""

    containers: tuple[str, ...] = field(kw_only=True)
    word, done = "schedule", "scheduled"


@dataclass(frozen=True)
class Reload(Operation):
    """Let a service take its changed configuration without a new container."""

    word, done, replaces = "reload", "reloaded", False


@dataclass(frozen=True)
class RollOut(Operation):
    """Replace the containers of a service that serves, without losing a request."""

    move: Move = field(kw_only=True)
    word, done = "roll out", "replaced"


@dataclass(frozen=True)
class RollOutMore(RollOut):
    """Run more or fewer containers of a service that serves, without losing a request."""

    word, done = "scale", "scaled"


@dataclass(frozen=True)
class TryOut(RollOut):
    """Let some new containers of a service have a share of its requests."""

    word, done = "try out", "on trial"


@dataclass(frozen=True)
class Join(Operation):
    """Let containers that serve into the network of those that get requests: made before there was one, for example."""

    containers: tuple[str, ...] = field(kw_only=True)
    word, done, replaces = "join", "joined", False


T = TypeVar("T", bound=Operation)


@dataclass(frozen=True)
class Plan:
    """What a deploy does, in order. seen: what it was decided from."""

    seen: Survey
    operations: tuple[Operation, ...]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.operations

    def of(self, *phases: Phase) -> list[Operation]:
        """The operations of some phases."""
        return [each for each in self.operations if each.phase in phases]

    def every(self, kind: type[T]) -> list[T]:
        """The operations of a type."""
        return [each for each in self.operations if isinstance(each, kind)]

    @property
    def moves(self) -> list[Move]:
        """What a rollout moves."""
        return [each.move for each in self.every(RollOut)]

    def of_services(self) -> dict[str, Operation]:
        """What happens to each service that changes; of several things the last, which is the largest."""
        return {each.subject: each for each in self.operations if each.phase not in FIRST}


def decide(seen: Survey) -> Plan:
    """The plan for what was seen."""
    drifts = seen.drifts()
    found = changes.compare(seen.stack, seen.containers, drifts)
    operations = [
        *_images(seen),
        *_tidying(found),
        *_provisions(seen),
        *_outsiders(seen),
        *_services(seen, found, drifts),
        *_unscheduled(seen),
        *_leftovers(found),
    ]
    return Plan(seen, tuple(sorted(operations, key=lambda each: (each.phase, _turn(each)))))


def _turn(operation: Operation) -> int:
    """The order within a phase: HAProxy is there, and sees everybody who serves, before nginx sends requests to it."""
    if operation.phase != Phase.EDGE or operation.subject == pool.SERVICE:
        return 0
    return 1 if isinstance(operation, Join) else 2


# ── images ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _images(seen: Survey) -> list[Operation]:
    needs = seen.needs()
    return [
        *(Pull(Phase.IMAGES, reference, ("not on this machine",)) for reference in needs.pull),
        *(Build(Phase.IMAGES, each.service, tuple(_built_anew(seen, each)), image=each) for each in needs.build),
        *(Tag(Phase.IMAGES, each.service, ("it was built before",), image=each) for each in needs.tag),
    ]


def _built_anew(seen: Survey, image: images.OwnImage) -> list[str]:
    """Why an image is another one; what was not built alike may have another source as well, and nobody can tell."""
    if image.reference not in seen.image_ids and image.content not in seen.image_ids:
        return ["its image is not on this machine"]
    old, new = seen.deployed.get(image.service), seen.stack.document["services"][image.service]
    if not any(each.service == image.service for each in seen.containers):
        return ["not built yet"]
    if old is None:
        return ["its source or build settings changed"]
    return differences.explain_build(old.get("build") or {}, new["build"]) or ["its source changed"]


# ── services ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _services(seen: Survey, found: Changes, drifts: Mapping[str, Drift]) -> list[Operation]:
    stack, operations = seen.stack, list[Operation]()
    rolling = stack.rolling
    network = pools.network(stack)
    # A canary has shown what it was to show: its containers go with the old ones.
    trial = {each.id for each in seen.containers if pools.on_trial(each, network)}
    aside = found.outdated | trial
    for name, change in found.services.items():
        mine = [each for each in seen.containers if each.service == name]
        causes = tuple(_causes(seen, change, mine, drifts))
        if change.kind in {changes.UNCHANGED, changes.RELOAD} and (cause := _rerouted(seen, name)):
            operations.append(Reload(phase_of(stack, name), name, (*(each for each in causes if each), cause)))
            continue
        if change.kind == changes.UNCHANGED:
            continue
        if change.kind == changes.RUNNING:
            # A job of an optional tier holds nobody up.
            if name in stack.migrations:
                operations.append(AwaitJob(Phase.RUNNING_JOBS, name, causes, container=mine[-1].id))
        elif name in stack.scheduled:
            made = tuple(each.id for each in mine)
            operations.append(Schedule(Phase.SCHEDULED_JOBS, name, causes, containers=made))
        elif name in rolling and any(each.running for each in mine):
            kind = RollOutMore if change.kind == changes.SCALE else RollOut
            step = move(rolling[name], mine, lambda each: each.id not in aside)
            operations.append(kind(Phase.ROLLOUT, name, causes, move=step))
        else:
            operations.append(_operation(stack, change, mine, causes))
    return operations


def _provisions(seen: Survey) -> list[Operation]:
    """What the services own and the data tier lacks."""
    return [
        Provision(Phase.PROVISION_NEW if each.later else Phase.PROVISION, each.service, each.causes, part=each.part)
        for each in seen.needed
    ]


def _rerouted(seen: Survey, name: str) -> str:
    """Why a reader of the routes must read them again; "" when it need not."""
    reader = routes.READERS.get(name)
    if not reader or reader.of(seen.routes) == reader.of(seen.declared_routes):
        return ""
    what = "routes" if name in routes.EDGE else "metrics"
    return f"the services' {what} changed" if seen.routes else f"it has no {what} yet"


def _outsiders(seen: Survey) -> list[Operation]:
    """Containers that serve, and that HAProxy cannot see."""
    network = pools.network(seen.stack)
    operations: list[Operation] = []
    for name in pools.declared(seen.stack):
        # One on probation is let in when it is proven, or removed.
        outside = [
            each.id
            for each in seen.containers
            if each.service == name
            and each.running
            and network not in each.addresses
            and each.restart_policy != PROBATION
        ]
        if outside:
            cause = f"not in the network {pools.NETWORK} yet"
            operations.append(Join(Phase.EDGE, name, (cause,), containers=tuple(outside)))
    return operations


def _operation(stack: Stack, change: Change, mine: Sequence[Container], causes: tuple[str, ...]) -> Operation:
    """The operation on a service that is not rolled out."""
    name, kind = change.service, change.kind
    phase = phase_of(stack, name)
    if kind == changes.RUN:
        return Run(Phase.JOBS if name in stack.migrations else phase, name, causes)
    if kind == changes.RELOAD:
        return Reload(phase, name, causes)
    if kind in {changes.RECREATE, changes.REFRESH}:
        running = any(each.running and not each.looping for each in mine)
        # What is not in use can be replaced without asking anybody.
        asked = running and (name in stack.foundation or name == edge.SERVICE)
        return (Restart if asked else Replace)(phase, name, causes, running=running)
    return {changes.CREATE: Create, changes.SCALE: Scale, changes.START: Start}[kind](phase, name, causes)


def phase_of(stack: Stack, name: str) -> Phase:
    """The tier that a service which is not rolled out is brought up with."""
    if name in stack.foundation:
        return Phase.DATA_TIER
    if name in routes.EDGE:
        return Phase.EDGE
    return Phase.MONITORING if stack.services[name].monitoring else Phase.SERVICES


def _causes(seen: Survey, change: Change, mine: Sequence[Container], drifts: Mapping[str, Drift]) -> list[str]:
    """Everything that differs, not only what weighs most."""
    name = change.service
    if not mine or change.kind in {changes.SCALE, changes.START, changes.RUNNING}:
        return [change.reason] if change.reason else []
    found = [drifts[each.id] for each in mine]
    causes: list[str] = []
    if any(each.configuration for each in found):
        causes += _explained(seen.deployed.get(name), seen.stack.document["services"][name]) or [NEW_CONFIGURATION]
    if any(each.image for each in found):
        own = next((each for each in seen.own if each.service == name), None)
        causes += _built_anew(seen, own) if own else [NEW_IMAGE]
    causes += [f"{path} changed" for path in sorted({path for each in found for path in each.files})]
    service = seen.stack.services[name]
    if len(mine) != service.replicas and not service.one_shot:
        causes.append(f"{len(mine)} -> {service.replicas}")
    return causes or [change.reason]


def _explained(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    return differences.explain(old, new) if old is not None else []


# ── what is left of something ─────────────────────────────────────────────────────────────────────────────────────────


def _tidying(found: Changes) -> list[Operation]:
    cause = "left behind by an interrupted command"
    return [
        # They hold ports that their successors may want.
        *_orphans(Phase.TIDY, [each for each in found.orphans if each.ports]),
        *(Remove(Phase.TIDY, each.service, (cause,), containers=(each.id,)) for each in found.discard),
        *(Rename(Phase.TIDY, each.service, (cause,), container=each.id, name=name) for each, name in found.rename),
    ]


def _unscheduled(seen: Survey) -> list[Operation]:
    """Containers of jobs that only a person runs: the scheduler would go on starting one that it was made for."""
    return [
        Remove(Phase.SCHEDULED_JOBS, name, ("no schedule starts it any more",), containers=idle)
        for name, service in seen.stack.services.items()
        if service.on_demand
        and name not in seen.stack.scheduled
        and (idle := tuple(each.id for each in seen.containers if each.service == name and not each.running))
    ]


def _leftovers(found: Changes) -> list[Operation]:
    # Only at the end: what was replaced may have leaned on it, as a primary does on the lease in etcd.
    return _orphans(Phase.LEFTOVERS, [each for each in found.orphans if not each.ports])


def _orphans(phase: Phase, orphans: Sequence[Container]) -> list[Operation]:
    services = sorted({each.service for each in orphans})
    return [
        Remove(
            phase,
            name,
            ("nothing declares it any more",),
            containers=tuple(each.id for each in orphans if each.service == name),
        )
        for name in services
    ]
