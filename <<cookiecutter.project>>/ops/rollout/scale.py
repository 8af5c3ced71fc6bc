"""Scale: run another number of containers of a service, up and down without losing a request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ops import engine
from ops.base import console, findings
from ops.base.environments import Environment, relative, set_value
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.engine import Container
from ops.parts import prometheus, routes
from ops.parts.postgres import connections
from ops.rollout import canary, preflight
from ops.rollout.deploy import Deployment, deployment
from ops.rollout.observe import by_container, note
from ops.rollout.roll import move
from ops.stack import images, labels, model, networks
from ops.stack.model import Stack
from ops.state import releases
from ops.state.drift import PROBATION

# More containers of one service on one host only share the same cores; a slip of the finger should not start 500.
MOST_REPLICAS = 50


def number(count: str) -> int:
    """How many containers are wanted. Raises OpsError (usage) for what is no such number."""
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= MOST_REPLICAS):
        raise OpsError(
            f'"{count}" is not a number of containers: give a whole number from 1 to {MOST_REPLICAS}.',
            "For example: invoke scale web 3. To stop a whole environment: invoke stop.",
            USAGE,
        )
    return int(count)


def setting(declared: Stack, settings: Mapping[str, str], service: str) -> str:
    """The setting that says how many containers a service has. Raises OpsError (usage) when it cannot be scaled.

    settings: of all services that have one. A service with data or a port of its own is scaled by its own means.
    """
    known = [name for name in declared.rolling if name in settings]
    if service in known:
        return settings[service]
    if service in declared.rolling:
        variable = f"{service.upper().replace('-', '_')}_REPLICAS"
        raise OpsError(
            f'"{service}" cannot be scaled: its number of containers is not a setting.',
            f"In its Compose file: deploy: {{replicas: ${{{variable}}}}}; and {variable}=1 in the .env files.",
            USAGE,
        )
    if service in declared.restarting:
        why = "it publishes a port of the host" if declared.services[service].ports else f"{labels.ROLLOUT}: restart"
        raise OpsError(
            f'"{service}" cannot be scaled: two of its containers must not run at once ({why}).',
            f"If they may: {labels.ROLLOUT}: {labels.ROLLING}, and no port of the host.",
            USAGE,
        )
    raise OpsError(f'"{service}" cannot be scaled.', f"Can be scaled: {', '.join(known) or 'nothing'}.", USAGE)


def scale(env: Environment, service: str, count: str) -> None:
    """Run another number of containers of a service, and keep it that way: the number goes into the .env file."""
    wanted = number(count)
    key = setting(model.load(env), model.replica_settings(env), service)
    with deployment(env, f"scale {service} {wanted}") as work:
        containers = engine.containers(env)
        mine = [each for each in containers if each.service == service]
        with declared_as(env, service, mine) as found:
            networks.refuse(env, found.stack, found.document)
            canary.refuse(env, found.stack, containers)
            if not any(each.running for each in mine):
                declare(env, key, wanted)
                console.say(f"{service} does not run in {env.name}: `invoke deploy --env {env.name}` starts {wanted}")
                return
            if len(mine) == wanted and all(each.ready and each.restart_policy != PROBATION for each in mine):
                declare(env, key, wanted)
                console.say(f"nothing to change: {wanted} {service} healthy", "green")
                return
            if wanted > len(mine):
                _check_room(env, found, wanted, containers)
            began = time.monotonic()
            with work.released(
                found.stack.document, [], {service: f"{len(mine)} -> {wanted}"}, work.command, releases.SCALED
            ):
                _apply(work, found, wanted, mine)
                # Only now: a number that cannot be had must not be declared.
                declare(env, key, wanted)
                _tell_prometheus(env, found.stack, service, wanted)
                note(env, found.stack, [each.id for each in containers])
            elapsed = console.duration(time.monotonic() - began)
            console.say(f"{service}: {len(mine)} -> {wanted}, all healthy ({elapsed})", "green")


def declare(env: Environment, key: str, wanted: int) -> None:
    """Write the number into the .env file, if it is another one there."""
    before = env.values.get(key, "")
    if before != str(wanted):
        place = relative(env.env_file)
        console.say(f"{place}: {key}={wanted} (was {before or 'not set'}); commit it, it is the declared number now")
        set_value(env, key, str(wanted))


@dataclass(frozen=True)
class Declaration:
    """A service and the stack it is declared in. document: where that stands, when it is not the Compose files."""

    service: model.Service
    stack: Stack
    document: Path | None = None


def _check_room(env: Environment, found: Declaration, wanted: int, containers: Sequence[Container]) -> None:
    """Raise OpsError (REFUSED) when memory or PostgreSQL's connections do not suffice for so many."""
    service, limit = found.service.name, found.service.memory_limit
    more = wanted - sum(each.running for each in containers if each.service == service)
    memory = preflight.check_memory(
        int(more * limit * preflight.USED_OF_LIMIT), more * limit, preflight.available_memory(more * limit)
    )
    running = {name: sum(each.running for each in containers if each.service == name) for name in found.stack.lasting}
    for check in (memory, connections.check(env, found.stack, {**running, service: wanted})):
        if check.status == findings.FAILED:
            raise OpsError(f"There is no room for {more} more {service}: {check.detail}.", check.remedy, REFUSED)
        if check.status == findings.WARNING:
            console.warn(f"{check.name}: {check.detail} ({check.remedy})")


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


def _apply(work: Deployment, found: Declaration, wanted: int, mine: Sequence[Container]) -> None:
    service = replace(found.service, replicas=wanted)
    step = move(service, mine, lambda each: each.restart_policy != PROBATION)
    # More of the same, although the name of the image was removed or given to another one meanwhile.
    own = images.OwnImage(service.name, service.image, service.image)
    if step.fresh and engine.image_ids([service.image]).get(service.image) not in {each.image_id for each in mine}:
        images.tag_back([own], mine)
    work.roll_out([step], found.stack)


def _tell_prometheus(env: Environment, declared: Stack, service: str, wanted: int) -> None:
    """Tell Prometheus the new number, so that a lower one is no alert. declared: what runs, which is all that it
    watches; what else was edited the next deploy brings."""
    containers = engine.containers(env)
    mine = next(
        (each for each in containers if each.service == prometheus.SERVICE and each.running and not each.looping), None
    )
    if not mine:
        return
    changed = replace(declared.services[service], replicas=wanted)
    files = prometheus.render(replace(declared, services={**declared.services, service: changed}))
    try:
        if files != routes.READERS[prometheus.SERVICE].of(routes.read(containers)):
            routes.write(env, declared, files)
            prometheus.reload(mine)
    except OpsError as error:
        console.warn(f"Prometheus could not be told the new number: {error.message}")
