"""Undo: every step is tried, nothing interrupts, and what failed is told."""

from __future__ import annotations

import os
import signal

from ops.base import undo
from ops.base.errors import OpsError


def failing(error: BaseException):
    def act() -> None:
        raise error

    return act


def test_every_step_is_taken_whatever_the_others_do() -> None:
    done: list[str] = []
    failed = undo.every(
        [
            ("removing the new containers", failing(OpsError("The engine is away."))),
            ("writing it down", failing(OSError(28, "No space left on device"))),
            ("closing", failing(KeyboardInterrupt())),
            ("releasing nginx", lambda: done.append("released")),
        ]
    )
    assert done == ["released"]
    assert failed == [
        "removing the new containers (The engine is away.)",
        "writing it down ([Errno 28] No space left on device)",
        "closing (KeyboardInterrupt)",
    ]


def test_no_signal_interrupts_it() -> None:
    def signalled() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert undo.every([("surviving", signalled)]) == []
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
