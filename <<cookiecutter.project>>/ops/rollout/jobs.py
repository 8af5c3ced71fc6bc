"""Jobs: services that run to their end, such as migrations. One of a kind at a time, and none outlives its deploy.

A deploy makes the containers of scheduled jobs, and never starts one.

A migration may take hours: it has no limit unless MIGRATION_TIMEOUT sets one. Whatever ends the wait stops the job
cleanly before the lock is free, so that no other deploy meets it in the middle of an ALTER.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops import engine
from ops.base import console, undo
from ops.base.environments import Environment
from ops.base.errors import MIGRATION, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.rollout import gate

# Setting and default, in seconds: how long a job may run; 0 is as long as it takes.
LIMIT = ("MIGRATION_TIMEOUT", 0)
# For Compose to create the container and start it.
_START_SECONDS = 180
_LOOK_SECONDS = 1.0
_LINES = 15


class Failed(OpsError):
    """A job ended with another exit code than 0."""


def run(env: Environment, name: str, remedy: str = "") -> None:
    """Run a job to its end. remedy: what a failure leaves behind, for its message. Raises OpsError (MIGRATION)."""
    argv = ("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", name)
    try:
        engine.compose(env, *argv, timeout=_START_SECONDS)
        job = next(each for each in reversed(engine.containers(env)) if each.service == name)
    except BaseException as error:
        # Compose may have started it before it was cut off.
        _stop_after(error, env, name)
        raise
    finish(env, job, remedy)


def finish(env: Environment, job: Container, remedy: str = "") -> None:
    """Wait until a job that runs ends well. Raises OpsError (MIGRATION) when it fails or exceeds its limit."""
    limit = env.number(*LIMIT)
    try:
        with console.activity(f"running {job.service}") as tick:
            code = _wait(job, limit, tick)
    except BaseException as error:
        _stop_after(error, env, job.service)
        raise
    if code != 0:
        lines = "\n".join(f"  {gate.shorten(line)}" for line in engine.logs(job.id, _LINES))
        raise Failed(f"{job.service} failed with exit code {code}. Its last lines:\n{lines}", remedy, MIGRATION)


def schedule(env: Environment, name: str, before: Sequence[str], timeout: float, document: Path | None = None) -> bool:
    """Make the container of a scheduled job; whether that was possible. before: ids of what it replaces; timeout:
    seconds to wait for the end of one that runs; document: a resolved configuration instead of the Compose files."""

    def removed() -> bool:
        # Without force: the engine refuses to remove what runs, and it may have been started a moment ago.
        return not before or engine.docker("rm", *before, check=False).ok or not engine.inspect(before)

    if not removed():
        with console.activity(f"waiting for {name} to end, which is to be replaced"):
            gone = until(removed, timeout, _LOOK_SECONDS)
        if not gone:
            console.warn(f"{name} still runs. The next deploy replaces it.")
            return False
    line = ("up", "--no-start", "--no-deps", "--no-build", "--pull", "never", name)
    engine.compose(env, *line, document=document, timeout=_START_SECONDS)
    return True


def _wait(job: Container, limit: float, tick: Callable[[str], None]) -> int:
    """The exit code of a job, once it has ended. Raises OpsError (MIGRATION) after so many seconds since its start."""
    began = job.started or time.time()
    while True:
        found = engine.look([job.id])
        if not found:
            raise OpsError(f"{job.name} was removed while it ran.", "Run the same command again.", MIGRATION)
        if found[0].state in {"exited", "dead"}:
            return found[0].exit_code
        took = time.time() - began
        if limit and took > limit:
            raise OpsError(
                f"{job.service} did not end within {limit:.0f} s and was stopped.",
                f"Give it more time: {LIMIT[0]} in the .env file, in seconds; 0 is no limit.",
                MIGRATION,
            )
        tick(f"{console.duration(took)}: {''.join(engine.logs(job.id, 1))[:120]}")
        time.sleep(_LOOK_SECONDS)


def _stop_after(error: BaseException, env: Environment, name: str) -> None:
    """Stop a job cleanly because of an error, and tell when that failed."""

    def stop() -> None:
        def running() -> list[str]:
            return [each.id for each in engine.containers(env) if each.service == name and each.running]

        if ids := running():
            # Its own grace period decides how long that may take.
            engine.docker("stop", *ids, timeout=None)
            if running():
                raise OpsError("it still runs")

    if failed := undo.every([(f"stopping {name}", stop)]):
        words = f"This failed, too: {'; '.join(failed)}."
        if isinstance(error, OpsError):
            error.message += f"\n{words}"
        else:
            console.warn(words)
