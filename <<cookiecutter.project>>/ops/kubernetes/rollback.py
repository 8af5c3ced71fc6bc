"""Roll back in a cluster: bring the owner's services back to an earlier release, by the same rollout that brings new
ones.

Images and settings of the services come back as they were then; how many replicas there are stays as it is declared
now. Data, schema, and the parts of the stack stay too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.base import console, findings
from ops.base.environments import Environment
from ops.base.errors import FAILED, USAGE, OpsError
from ops.kubernetes import plan
from ops.kubernetes.deploy import deployment
from ops.kubernetes.plan import Seen
from ops.rollout import announce, hooks
from ops.rollout.plan import Operation
from ops.stack import differences, model
from ops.stack.model import Stack
from ops.state import releases
from ops.state.releases import Release


def rollback(env: Environment, number: int | None = None) -> None:
    """Bring the services back to a release (None: the one before). Raises OpsError when that cannot be, or fails; the
    pods that run then keep serving."""
    with deployment(env, "rollback") as work:
        now = model.load(env)
        wanted = target(env, number)
        then = as_then(now, releases.document(env, wanted), wanted)
        seen = plan.survey(env, then)
        operations = backwards(seen, now)
        if not operations:
            console.say(f"nothing to change: {env.name} runs release {wanted.number}", "green")
            return
        findings.refuse(list(hooks.check(env)))
        work.command = f"rollback {wanted.number}"
        changed = [each.subject for each in operations]
        changes = dict.fromkeys(changed, f"back to release {wanted.number}")
        with announce.announced(work, changed, releases.DEPLOYED, back=True), work.released(then, changes):
            work.touched = True
            work.prepare(seen, changed)
            work.roll_out(f"rolling back to release {wanted.number}", operations, seen)
        console.say(f"{env.name} is back on release {wanted.number}: {', '.join(changed)}", "green")
        console.say(
            "Data and schema stay. The files still declare the newer version: revert them before the next deploy."
        )


def target(env: Environment, number: int | None = None) -> Release:
    """The release to roll back to: that number, or the newest one before the current one that differs from it. Raises
    OpsError when there is none, or it cannot be rolled back to."""
    candidates = releases.kept(env)
    listed = f"Available releases: {', '.join(str(each.number) for each in candidates[1:]) or 'none yet'}."
    if number is not None:
        found = next((each for each in candidates if each.number == number), None)
        if not found:
            raise OpsError(f"Cannot roll back {env.name} to release {number}.", listed, USAGE)
        return found
    current = candidates[0] if candidates else None
    found = next((each for each in candidates[1:] if current and _differs(env, each, current)), None)
    if not found:
        reason = "no earlier release differs from the current one"
        raise OpsError(f"Cannot roll back {env.name}: {reason}.", listed, FAILED)
    return found


def _differs(env: Environment, one: Release, now: Release) -> bool:
    """Whether going back to a release would change a service. One whose configuration is lost is no way back."""
    try:
        before, after = model.parse(releases.document(env, one)), model.parse(releases.document(env, now))
    except OpsError:
        return False
    own = _own(before) & _own(after)
    return any(
        one.images.get(name) != now.images.get(name)
        or differences.explain(before.document["services"][name], after.document["services"][name])
        for name in own
    )


def as_then(now: Stack, then: Mapping[str, Any], release: Release) -> Stack:
    """What is declared now, with the owner's services and scheduled jobs as a release had them: with the images they
    ran then, and as many containers as now."""
    before, services = model.parse(then), dict(now.document["services"])
    for name in _own(before) & _own(now):
        entry = {key: value for key, value in then["services"][name].items() if key not in {"build", "scale"}}
        if name in release.images:
            entry["image"] = release.images[name]
        deploy = {**(entry.get("deploy") or {}), "replicas": now.services[name].replicas}
        services[name] = {**entry, "deploy": deploy}
    return model.parse({**now.document, "services": services})


def backwards(seen: Seen, now: Stack) -> list[Operation]:
    """What must be rolled out so that the owner's services are as they were then."""
    own = _own(now)
    changed = [each for each in plan.decide(seen).operations if each.subject in own]
    return [each for each in changed if isinstance(each, plan.Apply)]


def _own(declared: Stack) -> set[str]:
    """What a rollback brings back: the owner's services and scheduled jobs. A migration that has run has run."""
    scheduled = {name for name, each in declared.scheduled.items() if each.own}
    return {*declared.rolling, *declared.restarting, *scheduled}
