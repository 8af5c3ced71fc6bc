"""Roll back: bring the owner's services back to an earlier release, by the same rollout that brings new ones.

Images and settings of the services come back, as they were then; how many replicas there are stays as it is declared
now. Data, schema, and the parts of the stack stay too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ops import engine
from ops.base import console, findings
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.engine import Container
from ops.rollout import announce, canary, hooks, jobs
from ops.rollout.deploy import Deployment, deployment
from ops.rollout.observe import by_container, note
from ops.rollout.roll import Move, move
from ops.stack import images, model, networks
from ops.stack.model import Service, Stack
from ops.state import releases
from ops.state.releases import Release


def number(text: str) -> int | None:
    """The number of a release as it was typed; None for "". Raises OpsError (usage) for anything else."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise OpsError(f'"{text}" is not the number of a release.', "`invoke releases` lists them.", USAGE)
    return int(text)


def rollback(env: Environment, number: int | None = None) -> None:
    """Bring the services back to a release (None: the one before). Raises OpsError when that cannot be, or fails; the
    containers that run then keep serving."""
    with deployment(env, "rollback") as work:
        target = releases.target(env, number)
        declared = model.parse(releases.document(env, target))
        with releases.as_file(declared.document) as document:
            networks.refuse(env, declared, document)
        now = engine.containers(env)
        canary.refuse(env, declared, now)
        hashes = by_container(now, lambda folder: releases.hashes(env, target, folder))
        newer = model.load(env)
        moves = backwards(declared, newer, now, hashes, target)
        restarts = restarted(declared, newer, now, hashes, target)
        jobs_back = rescheduled(declared, newer, now, hashes, target)
        if not (moves or restarts or jobs_back):
            console.say(f"nothing to change: {env.name} runs release {target.number}", "green")
            return
        findings.refuse(hooks.check(env))
        work.command = f"rollback {target.number}"
        changed = [*(each.service.name for each in moves), *restarts, *jobs_back]
        with announce.announced(work, changed, releases.DEPLOYED, back=True):
            _roll_out(work, moves, restarts, jobs_back, declared, target)
        note(env, declared, [each.id for each in now])
        console.say(f"{env.name} is back on release {target.number}: {', '.join(changed)}", "green")
        console.say(
            "Data and schema stay. The files still declare the newer version: revert them before the next deploy."
        )


def backwards(
    then: Stack, now: Stack, containers: list[Container], hashes: Mapping[str, str], target: Release
) -> list[Move]:
    """What must move so that the services are as they were then. hashes: Compose's own, of `then`, by container id."""
    same = partial(_is_as_then, hashes, target)
    moves = []
    for name, service in then.rolling.items():
        mine = [each for each in containers if each.service == name]
        # What is a part of the stack now was perhaps not labelled as one then.
        if name not in now.rolling or not any(each.running for each in mine):
            continue
        step = move(replace(service, replicas=now.services[name].replicas), mine, same)
        if step.fresh or step.leave:
            moves.append(step)
    return moves


def restarted(
    then: Stack, now: Stack, containers: list[Container], hashes: Mapping[str, str], target: Release
) -> dict[str, Service]:
    """Services that must not run beside their successors and are not as they were then. hashes: as of `backwards`."""
    found = {}
    for name, service in then.restarting.items():
        mine = [each for each in containers if each.service == name]
        lasting = name in now.restarting and any(each.running for each in mine)
        if lasting and not all(_is_as_then(hashes, target, each) for each in mine):
            found[name] = replace(service, replicas=now.services[name].replicas)
    return found


def rescheduled(
    then: Stack, now: Stack, containers: list[Container], hashes: Mapping[str, str], target: Release
) -> dict[str, list[str]]:
    """Containers of the owner's scheduled jobs that are not as they were then, by job; of those that were scheduled
    then and are now. A part of the stack stays what it is. hashes: as of `backwards`."""
    found: dict[str, list[str]] = {}
    lasting = {name for name in then.scheduled.keys() & now.scheduled.keys() if now.services[name].own}
    for each in containers:
        if each.service in lasting and not _is_as_then(hashes, target, each):
            found.setdefault(each.service, []).append(each.id)
    return found


def _is_as_then(hashes: Mapping[str, str], target: Release, each: Container) -> bool:
    return each.config_hash == hashes.get(each.id) and each.image_id == target.images.get(each.service)


def _roll_out(
    work: Deployment,
    moves: list[Move],
    restarts: Mapping[str, Service],
    jobs_back: Mapping[str, list[str]],
    declared: Stack,
    target: Release,
) -> None:
    own = [
        images.OwnImage(name, declared.services[name].image, image)
        for name, image in target.images.items()
        if name in declared.services
    ]
    changed = [*(each.service.name for each in moves), *restarts, *jobs_back]
    changes = dict.fromkeys(changed, f"back to release {target.number}")
    with work.released(declared.document, own, changes, f"rollback to {target.number}"):
        images.tag((each.content, each.reference) for each in own)
        if moves:
            work.roll_out(moves, declared)
        if restarts:
            work.restart(restarts, declared)
        with releases.as_file(declared.document) as document:
            for name, before in jobs_back.items():
                work.doing = f"scheduling {name}"
                jobs.schedule(work.env, name, before, work.timeout, document)
