"""Waiting for something outside, for a limited time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float, pause: float = 0.2, *, accept: Callable[[T], object] = bool) -> T:
    """What `look()` answers as soon as that is acceptable; the last answer when it was not within so many seconds.

    accept: whether an answer is what was waited for; without it, a true one is. pause: seconds between two looks.
    """
    ends = time.monotonic() + seconds
    while not accept(answer := look()) and time.monotonic() < ends:
        time.sleep(pause)
    return answer
