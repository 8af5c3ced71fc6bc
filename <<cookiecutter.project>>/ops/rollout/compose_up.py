"""Compose brings services up while the gate looks on: for what does not run yet, and for what can only be restarted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import OpsError
from ops.engine import Container
from ops.rollout import gate


def up_argv(env: Environment, services: Sequence[str], *options: str, document: Path | None = None) -> list[str]:
    """The Compose command that starts services: images are there by now, and order is ours to keep. document: a
    resolved configuration instead of the Compose files."""
    fixed = ("--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull")
    return engine.compose_argv(env, "up", *fixed, *options, *services, document=document)


def bring_up(
    env: Environment, argv: list[str] | None, judge: gate.Gate, timeout: float, patient: bool = False
) -> Sequence[gate.Row]:
    """Run a Compose command (None: it is done already) while the gate looks on; the rows once every service is healthy.

    patient: let Compose finish although a service has failed. Raises OpsError that says who is not, and why.
    """

    def look() -> list[Container]:
        return engine.containers(env)

    code: int | None = 0
    if argv is None:
        verdict = gate.watch(judge, look, timeout)
    else:
        log = env.log_file("up.log")
        with (
            log.open("wb") as output,
            engine.popen(argv, stdout=output, stderr=output, **engine.surroundings(env)) as work,
        ):
            verdict = gate.watch(judge, look, timeout, work, patient=patient)
            code = work.poll()
            if code is None:
                engine.end([work])
        if code and verdict.status != gate.FAILED:
            raise compose_failed(env, log)
    gate.demand(verdict)
    return verdict.rows


def compose_failed(env: Environment, log: Path) -> OpsError:
    """The error for a Compose that gave up, from what it wrote."""
    lines = engine.tail(log, 20)
    text = "\n".join(lines)
    if known := engine.explain(text):
        return known
    reasons = [line for line in lines if "rror" in line] or lines[-3:]
    listed = "\n".join(f"  {line.strip()}" for line in reasons)
    return OpsError(f"Compose could not start everything:\n{listed}", f"All of its output: {relative(log)}")
