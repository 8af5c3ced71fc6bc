"""What a deploy would do, and why: the same look, decision and checks, and nothing is touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from ops.base import console, findings
from ops.base.environments import Environment
from ops.base.errors import REFUSED
from ops.rollout import canary, hooks, plan, preflight
from ops.rollout.observe import survey
from ops.rollout.plan import Operation


def preview(env: Environment, as_json: bool = False, share: int = 0) -> int:
    """Show what `invoke deploy` would do in an environment, and why; the exit code. share: of the requests, in percent,
    when it is to begin a canary.

    Raises OpsError (REFUSED) when a deploy would be refused; as JSON, what preflight refuses is part of the document.
    """
    decided = plan.decide(survey(env))
    if share:
        canary.refuse(env, decided.seen.stack, decided.seen.containers)
        decided = canary.limited(decided, share)
    if decided.idle:
        decided.seen.warn_elsewhere(env)
    return present(env, decided, preflight.of(env, decided), as_json, share)


def present(
    env: Environment, decided: Decided, found: Sequence[findings.Check], as_json: bool = False, share: int = 0
) -> int:
    """Show a plan and what preflight found; the exit code. as_json, share, errors: as of preview."""
    findings.warn(found)
    refused = [each for each in found if each.status == findings.FAILED]
    if as_json:
        console.say(json.dumps(as_document(env, decided, refused), indent=2))
        return REFUSED if refused else 0
    show(env, decided, refused, share)
    findings.refuse(refused)
    return 0


class Decided(Protocol):
    """What was decided, on whatever engine: operations in the order in which they are carried out."""

    @property
    def operations(self) -> Sequence[Operation]: ...

    @property
    def idle(self) -> bool: ...


def as_document(env: Environment, decided: Decided, refused: Sequence[findings.Check] = ()) -> dict[str, Any]:
    """A plan for programs. operations: in the order in which they are carried out; replaces: whether a container of the
    subject, a service, would be another one afterwards."""
    return {
        "environment": env.name,
        "idle": decided.idle,
        "operations": [
            {
                "phase": each.phase.name.lower(),
                "operation": each.word,
                "subject": each.subject,
                "replaces": each.replaces,
                "asks": each.asks,
                "causes": list(each.causes),
            }
            for each in decided.operations
        ],
        "hooks": [] if decided.idle else hooks.present(env, hooks.OF_DEPLOY),
        "refused": [asdict(each) for each in refused],
    }


def show(env: Environment, decided: Decided, refused: Sequence[findings.Check] = (), share: int = 0) -> None:
    """Print a plan for people. share: as of preview."""
    if decided.idle:
        console.say(f"nothing to do: {env.name} is as declared", "green")
        return
    rows = [row for each in decided.operations for row in _rows(each)]
    console.print_table(("WHAT", "SERVICE", "WHY"), [tuple(console.plain(cell) for cell in row) for row in rows])
    if found := hooks.present(env, hooks.OF_DEPLOY):
        console.say(f"\nhooks: {', '.join(found)}")
    if not refused:
        option = f" --canary {share}" if share else ""
        console.say(f"\nnothing was changed; `invoke deploy{option} --env {env.name}` does this, in this order")


def _rows(operation: Operation) -> Sequence[tuple[str, str, str]]:
    first, *rest = operation.causes or ("",)
    words = f"{operation.word} (asks first)" if operation.asks else operation.word
    return [(words, operation.subject, first), *(("", "", cause) for cause in rest)]
