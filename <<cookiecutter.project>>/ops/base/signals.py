"""Signals that ask a command to end: the same for a terminal, a job runner and a lost connection."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

# Ctrl-C, a job runner that gives up, and a terminal or an ssh connection that is closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_ending() -> None:
    """Let every signal that asks a command to end raise KeyboardInterrupt, so that work is undone as after Ctrl-C.

    A signal that is ignored stays ignored: `nohup` asks for that.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals for a while. Only the main thread can, and only it receives them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def undisturbed() -> contextlib.AbstractContextManager[None]:
    """Nothing interrupts until an undo is done."""
    return ignored(*ENDING)
