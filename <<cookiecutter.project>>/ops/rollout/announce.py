"""What the rest of the team learns of a deploy or a rollback: by its hooks, and by its webhook."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Protocol

from ops.base import console, signals
from ops.base.environments import Environment
from ops.rollout import hooks, notify
from ops.state import releases


class Work(Protocol):
    """A deployment, as far as it is told about. release: its number, 0 before it has one."""

    env: Environment
    command: str
    release: int

    def elapsed(self) -> float:
        """Seconds since it began."""


@contextlib.contextmanager
def announced(work: Work, services: Collection[str], result: str, back: bool = False) -> Iterator[None]:
    """Run the hooks and tell the webhook around some work that changes an environment.

    services: those that change; result: how it ends when nothing fails, as in the history of releases; back: whether it
    is a rollback. Raises OpsError (REFUSED), before the work, when the hook before it fails.
    """
    told = _facts(work, services)
    hooks.before(work.env, hooks.PRE_ROLLBACK if back else hooks.PRE_DEPLOY, told)
    notify.send(work.env, notify.STARTED, told)
    with failing(work, services):
        yield
    done = _facts(work, services, result)
    notify.send(work.env, notify.ROLLED_BACK if back else notify.SUCCEEDED, done)
    try:
        hooks.after(work.env, hooks.POST_ROLLBACK if back else hooks.POST_DEPLOY, done)
    except KeyboardInterrupt:
        console.warn(f"The hook was interrupted. {work.env.name} is deployed.")


@contextlib.contextmanager
def failing(work: Work, services: Collection[str]) -> Iterator[None]:
    """Tell the webhook, and run the hook, when some work fails or is interrupted."""
    try:
        yield
    except BaseException as error:
        broken = isinstance(error, Exception)
        reason = str(error).partition("\n")[0] if broken else "interrupted"
        told = _facts(work, services, releases.BROKEN if broken else releases.INTERRUPTED, reason)
        with signals.undisturbed():
            notify.send(work.env, notify.FAILED, told)
        # A second Ctrl-C ends the hook; what failed is what is reported all the same.
        with contextlib.suppress(KeyboardInterrupt):
            hooks.after(work.env, hooks.DEPLOY_FAILED, told)
        raise


def _facts(work: Work, services: Collection[str], result: str = "", reason: str = "") -> dict[str, str]:
    return {
        "ENV": work.env.name,
        "PROJECT": work.env.project,
        "COMMAND": work.command,
        "USER": releases.author(),
        "COMMIT": releases.revision(work.env.project_dir),
        "SERVICES": " ".join(services),
        "RELEASE": str(work.release) if work.release else "",
        "RESULT": result,
        "REASON": reason,
        "SECONDS": f"{work.elapsed():.0f}" if result else "",
    }
