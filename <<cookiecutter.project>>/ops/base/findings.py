"""Checks before anything is touched: what one says, and the refusal that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ops.base import console
from ops.base.errors import REFUSED, OpsError

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Check:
    """A finding. status: ok, warning (a deploy goes on) or failed (it does not)."""

    name: str
    status: str
    detail: str
    remedy: str = ""


def warn(checks: Iterable[Check]) -> None:
    """Show the warnings, a line each."""
    for each in checks:
        if each.status == WARNING:
            console.warn(f"{each.name}: {each.detail}{f' ({each.remedy})' if each.remedy else ''}")


def refuse(checks: Iterable[Check]) -> None:
    """Raise OpsError (REFUSED) when something failed: one line each, and what to do."""
    failed = [each for each in checks if each.status == FAILED]
    if not failed:
        return
    lines = [
        f"  {each.name}: {each.detail}{f'{chr(10)}    -> {each.remedy}' if each.remedy else ''}" for each in failed
    ]
    raise OpsError("Nothing was started, because:\n" + "\n".join(lines), code=REFUSED)
