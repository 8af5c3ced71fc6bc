"""A container that ends with the command which waits for it, also when that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from ops.base.signals import interrupt_on_ending


@contextlib.contextmanager
def attended(watching: bool) -> Iterator[None]:
    """End as after Ctrl-C when standard input ends, so that nothing is left half done."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    interrupt_on_ending()
    if watching:
        threading.Thread(target=watch, daemon=True).start()
    yield
