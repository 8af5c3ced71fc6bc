"""What Ctrl-C does to work that changes an environment, on one host or in a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from ops import engine
from ops.base import signals
from ops.base.environments import Environment
from ops.base.errors import INTERRUPTED, OpsError


class Work(Protocol):
    """A deployment, as far as it can be interrupted. doing: what it is at; touched: whether it has changed anything;
    not_undone: steps of the way back that failed, in words."""

    env: Environment
    command: str
    doing: str
    touched: bool
    not_undone: list[str]

    def standing(self) -> str:
        """How far it came, in words."""


@contextlib.contextmanager
def explained(work: Work) -> Iterator[None]:
    """Turn Ctrl-C into an error that says how far the work came. Raises OpsError (INTERRUPTED)."""
    try:
        yield
    except KeyboardInterrupt:
        # A second press would cut short the tidying up.
        with signals.undisturbed():
            engine.end_all()
            state = work.standing() if work.touched else "nothing was changed"
        failed = f" The way back failed: {'; '.join(work.not_undone)}." if work.not_undone else ""
        raise OpsError(
            f"Interrupted while {work.doing}: {state}.{failed}",
            f"`invoke {work.command} --env {work.env.name}` continues from here.",
            INTERRUPTED,
        ) from None
