"""Every check that a deploy makes before it touches anything."""

from __future__ import annotations

from ops import engine
from ops.base import console, findings
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.parts import backups, provision
from ops.rollout import preflight
from ops.stack import contract, model
from ops.stack.model import Stack


def doctor(env: Environment) -> bool:
    """Show every preflight check; returns whether none failed.

    What is too old to read the Compose files is told by itself: the rest would only be its complaints.
    """
    found = preflight.check_versions(preflight.engine_info(), preflight.compose_version())
    if all(each.status != findings.FAILED for each in found):
        declared = model.load(env)
        wrong = [findings.Check("services", findings.FAILED, *each) for each in contract.problems(declared)]
        try:
            provision.declared(env, declared)
        except OpsError as error:
            wrong.append(findings.Check("services", findings.FAILED, error.message, error.remedy))
        # What reads the labels would stop at the first that it cannot read.
        found = wrong or _asked(env, declared)
    colours = {findings.OK: "green", findings.WARNING: "yellow", findings.FAILED: "red"}
    console.print_table(
        ("CHECK", "RESULT", "FOUND", "WHAT TO DO"),
        [
            (
                each.name,
                f"[{colours[each.status]}]{each.status}[/]",
                console.plain(each.detail),
                console.plain(each.remedy),
            )
            for each in found
        ],
    )
    failed = [each.name for each in found if each.status == findings.FAILED]
    console.say()
    if failed:
        console.say(f"{env.name} cannot be deployed: {', '.join(dict.fromkeys(failed))}", "red")
    else:
        console.say(f"{env.name} can be deployed", "green")
    return not failed


def _asked(env: Environment, declared: Stack) -> list[findings.Check]:
    containers = engine.containers(env)
    return [*preflight.run(env, declared, containers), *backups.doctor(env, declared, containers)]
