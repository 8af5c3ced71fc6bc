"""Scale: run another number of containers of a service, up and down without losing a request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ops import engine
from ops.base import console, findings
from ops.base.environments import Environment, relative, set_value
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.engine import Container
from ops.rollout import gate, preflight
from ops.rollout.compose_up import bring_up, up_argv
from ops.rollout.deploy import TIMEOUT
from ops.rollout.observe import by_container, note
from ops.rollout.roll import Rollout, move
from ops.stack import model, networks
from ops.stack.model import Stack
from ops.state import lock, releases
from ops.state.drift import PROBATION

# Services that may have several containers, and the setting that says how many. A database is scaled by its own means.
SCALABLE = {
    "web": "WEB_REPLICAS",
    "api": "API_REPLICAS",
    "auth-service": "AUTH_REPLICAS",
    "notification-service": "NOTIFICATION_REPLICAS",
}
# More containers of one service on one host only share the same cores; a slip of the finger should not start 500.
MOST_REPLICAS = 50

# Told how many replicas to expect: without a word, a lower number would be an alert.
OBSERVERS = ("prometheus",)


def replicas(service: str, count: str) -> tuple[str, int]:
    """The setting to change and its new value. Raises OpsError (usage) for a service or number that cannot be."""
    known = f"Can be scaled: {', '.join(SCALABLE)}."
    if service not in SCALABLE:
        raise OpsError(f'"{service}" cannot be scaled.', known, USAGE)
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= MOST_REPLICAS):
        raise OpsError(
            f'"{count}" is not a number of containers: give a whole number from 1 to {MOST_REPLICAS}.',
            f"{known} For example: invoke scale {service} 3. To stop a whole environment: invoke stop.",
            USAGE,
        )
    return SCALABLE[service], int(count)


def scale(env: Environment, service: str, count: str) -> None:
    """Run another number of containers of a service, and keep it that way: the number goes into the .env file."""
    key, wanted = replicas(service, count)
    with lock.hold(env, f"scale {service} {wanted} --env {env.name}") as held:
        containers = engine.containers(env)
        mine = [each for each in containers if each.service == service]
        with declared_as(env, service, mine) as found:
            _scale(env, found, key, wanted, containers, held)


@dataclass(frozen=True)
class Declaration:
    """A service and the stack it is declared in. document: where that stands, when it is not the Compose files."""

    service: model.Service
    stack: Stack
    document: Path | None = None


def _scale(
    env: Environment, found: Declaration, key: str, wanted: int, containers: Sequence[Container], held: lock.Lock
) -> None:
    service = found.service.name
    mine = [each for each in containers if each.service == service]
    networks.refuse(env, found.stack, found.document)
    if wanted > len(mine) and mine:
        _check_room(env, service, wanted, containers)
    before = env.values.get(key, "")
    env = set_value(env, key, str(wanted))
    place = relative(env.env_file)
    if before != str(wanted):
        console.say(f"{place}: {key}={wanted} (was {before or 'not set'}); commit it, it is the declared number now")
    if not any(each.running for each in mine):
        console.say(f"{service} does not run in {env.name}: `invoke deploy --env {env.name}` starts {wanted}")
        return
    if len(mine) == wanted and all(each.ready and each.restart_policy != PROBATION for each in mine):
        console.say(f"nothing to change: {wanted} {service} healthy", "green")
        return
    began = time.monotonic()
    _apply(env, found, wanted, mine, held)
    note(env, found.stack, [each.id for each in containers])
    elapsed = console.duration(time.monotonic() - began)
    console.say(f"{service}: {len(mine)} -> {wanted}, all healthy ({elapsed})", "green")


def _check_room(env: Environment, service: str, wanted: int, containers: Sequence[Container]) -> None:
    declared = model.load(env)
    limit = declared.services[service].memory_limit
    more = wanted - sum(each.running for each in containers if each.service == service)
    check = preflight.check_memory(
        int(more * limit * preflight.USED_OF_LIMIT), more * limit, preflight.available_memory(more * limit)
    )
    if check.status == findings.FAILED:
        raise OpsError(f"There is no room for {more} more {service}: {check.detail}.", check.remedy, REFUSED)
    if check.status == findings.WARNING:
        console.warn(f"memory: {check.detail}")


@contextmanager
def declared_as(env: Environment, service: str, containers: Sequence[Container]) -> Iterator[Declaration]:
    """The declaration that the running containers were made from: that of the current release, if they are its own.

    More of the same is what scaling means: what was edited since, or rolled back, is for the next deploy to bring.
    """
    current = releases.current(env)
    if current and releases.is_documented(env, current):
        wanted = by_container(containers, lambda folder: releases.hashes(env, current, folder))
        if all(each.config_hash == wanted[each.id] for each in containers):
            declared = model.parse(releases.document(env, current))
            with releases.as_file(declared.document) as document:
                yield Declaration(declared.services[service], declared, document)
            return
    declared = model.load(env)
    yield Declaration(declared.services[service], declared)


def _apply(env: Environment, found: Declaration, wanted: int, mine: Sequence[Container], held: lock.Lock) -> None:
    service = replace(found.service, replicas=wanted)
    timeout = env.number(*TIMEOUT)
    entries = found.stack.document["services"]
    step = move(service, mine, lambda each: each.restart_policy != PROBATION)
    Rollout(env, found.document, entries, [step], timeout, held.check).run()
    declared = model.load(env).services
    if observers := {name: declared[name] for name in OBSERVERS if name in declared}:
        judge = gate.Gate(observers, before=engine.containers(env))
        bring_up(env, up_argv(env, list(observers)), judge, timeout)
