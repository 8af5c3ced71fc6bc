"""Undo what a failed command has begun: every step is tried, and what did not work is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ops.base.signals import undisturbed

Step = tuple[str, Callable[[], object]]


def every(steps: Iterable[Step]) -> list[str]:
    """Take every step, whatever becomes of the others, and let no signal interrupt; what failed, in words.

    A step is what it does, in words, and the function that does it. Nothing is raised: the error that made the undo
    necessary is the one to report.
    """
    failed = []
    with undisturbed():
        for words, act in steps:
            try:
                act()
            # Also what nobody has thought of, such as a full disk: the next step may still help.
            except BaseException as error:
                failed.append(f"{words} ({str(error).strip() or type(error).__name__})")
    return failed
