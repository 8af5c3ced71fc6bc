"""What a deploy would do, and why: the same survey and the same decision, and nothing is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ops.base import console, findings
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.parts.postgres import majors
from ops.rollout import plan
from ops.rollout.deploy import moving, restarting
from ops.rollout.observe import Survey, decide, survey
from ops.rollout.plan import Plan
from ops.stack import differences
from ops.state import releases
from ops.state.drift import NEW_CONFIGURATION, NEW_IMAGE, Drift

ROLL_OUT, RESTART = "roll out", "restart (asks first)"
_WORDS = {
    plan.CREATE: "create",
    plan.RECREATE: "replace",
    plan.REFRESH: "replace",
    plan.SCALE: "scale",
    plan.START: "start",
    plan.RELOAD: "reload",
    plan.RUN: "run",
}


@dataclass(frozen=True)
class Step:
    """What would happen to one service. containers: whether any of its containers would be another one afterwards."""

    service: str
    change: str
    containers: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What a deploy would do. builds, pulls: images; removes: services that nothing declares any more.
    refused: why a deploy would not do it, for the one reason that lies in what is to be changed itself."""

    environment: str
    steps: tuple[Step, ...]
    builds: tuple[str, ...]
    pulls: tuple[str, ...]
    removes: tuple[str, ...]
    tidies: bool
    refused: tuple[findings.Check, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.steps or self.builds or self.pulls or self.removes or self.tidies)


def preview(env: Environment, as_json: bool = False) -> None:
    """Show what `invoke deploy` would change in an environment, and why. Raises OpsError when it would be refused."""
    seen = survey(env)
    shown = compose(env, seen, decide(seen), _deployed(env))
    if not shown.idle:
        found = majors.check(env, seen.stack, seen.containers)
        shown = replace(shown, refused=tuple(each for each in found if each.status == findings.FAILED))
    if as_json:
        document: dict[str, Any] = {"idle": shown.idle, **asdict(shown)}
        console.say(json.dumps(document, indent=2))
    else:
        show(shown)
    findings.refuse(shown.refused)


def compose(env: Environment, seen: Survey, decided: Plan, deployed: Mapping[str, Any]) -> Preview:
    """The preview of a plan. deployed: the services as they were declared at the last deploy."""
    needs = seen.needs()
    rolled = {each.service.name for each in moving(seen.stack, decided, seen.containers)}
    asked = {each.service for each in restarting(seen.stack, decided, seen.containers)}
    drifts = seen.drifts()
    steps = []
    for name, change in decided.changes.items():
        if change.kind == plan.UNCHANGED:
            continue
        word = RESTART if name in asked else _WORDS[change.kind]
        if name in rolled and change.kind != plan.SCALE:
            word = ROLL_OUT
        lasts = change.kind == plan.RELOAD or (change.kind == plan.START and name not in rolled)
        steps.append(Step(name, word, not lasts, tuple(_reasons(name, change, seen, deployed, drifts))))
    return Preview(
        environment=env.name,
        steps=tuple(steps),
        builds=tuple(each.service for each in needs.build),
        pulls=needs.pull,
        removes=tuple(sorted({each.service for each in decided.orphans})),
        tidies=bool(decided.discard or decided.rename or decided.pinned),
    )


def _reasons(
    name: str, change: plan.Change, seen: Survey, deployed: Mapping[str, Any], drifts: Mapping[str, Drift]
) -> list[str]:
    """Everything that differs, not only what weighs most."""
    mine = [each for each in seen.containers if each.service == name]
    if not mine or change.kind in {plan.SCALE, plan.START}:
        return [change.reason] if change.reason else []
    found = [drifts[each.id] for each in mine]
    reasons: list[str] = []
    if any(each.configuration for each in found):
        declared = seen.stack.document["services"][name]
        reasons += differences.explain(deployed[name], declared) if name in deployed else []
        reasons = reasons or [NEW_CONFIGURATION]
    if any(each.image for each in found):
        built = any(each.service == name for each in seen.own)
        reasons += _build_reasons(deployed.get(name), seen.stack.document["services"][name]) if built else [NEW_IMAGE]
    reasons += [f"{path} changed" for path in sorted({path for each in found for path in each.files})]
    replicas = seen.stack.services[name].replicas
    if len(mine) != replicas and not seen.stack.services[name].one_shot:
        reasons.append(f"{len(mine)} -> {replicas}")
    return reasons or [change.reason]


def _build_reasons(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Why an image is another one; what was not built alike may have another source as well, and nobody can tell."""
    if old is None:
        return ["its source or build settings changed"]
    return differences.explain_build(old.get("build") or {}, new["build"]) or ["its source changed"]


def _deployed(env: Environment) -> Mapping[str, Any]:
    current = releases.current(env)
    try:
        return releases.document(env, current)["services"] if current else {}
    except (OpsError, KeyError):
        return {}


def show(shown: Preview) -> None:
    """Print a preview for people."""
    if shown.idle:
        console.say(f"nothing to do: {shown.environment} is as declared", "green")
        return
    rows = [row for step in shown.steps for row in _rows(step)]
    rows += [(name, "remove", "nothing declares it any more") for name in shown.removes]
    if rows:
        console.print_table(("SERVICE", "WHAT", "WHY"), [tuple(console.plain(cell) for cell in row) for row in rows])
        console.say()
    for verb, names in (("build", shown.builds), ("pull", shown.pulls)):
        if names:
            console.say(f"images to {verb}: {', '.join(names)}")
    if shown.tidies:
        console.say("what an interrupted command left behind will be tidied up")
    if not shown.refused:
        console.say(f"nothing was changed; `invoke deploy --env {shown.environment}` does this")


def _rows(step: Step) -> Sequence[tuple[str, str, str]]:
    first, *rest = step.reasons or ("",)
    return [(step.service, step.change, first), *(("", "", reason) for reason in rest)]
