"""Deadlines and backoff."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_abandoned: set[asyncio.Task[Any]] = set()


def backoff(first: float = 0.05, longest: float = 1.0) -> Iterator[float]:
    """Pauses in seconds that double up to `longest`, with jitter, so that clients do not retry all at once."""
    pause = first
    while True:
        yield random.uniform(pause / 2, pause)  # noqa: S311
        pause = min(pause * 2, longest)


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or TimeoutError after so many seconds, whatever `work` does.

    `asyncio.timeout` waits until the cancelled work has ended, and a driver that wants to cancel its query at a silent
    server takes seconds for that. Here the caller goes on at once and the work ends in the background.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _abandoned.add(task)
            task.add_done_callback(_forget)
    if not done:
        raise TimeoutError(f"no answer within {seconds:.1f} s")
    return task.result()
