"""Work in the background of a service, for as long as it serves."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from stack import log
from stack.waiting import backoff

DIED = Counter("background_work_died_total", "Times that work in the background failed and was begun again.", ["work"])


def start(name: str, work: Callable[[], Awaitable[None]], longest: float = 30.0) -> asyncio.Task[None]:
    """Begin `work`; when it fails it begins again after a pause, until it returns or is cancelled.

    Nobody waits for such work, so a mistake in it would otherwise end it without a word until the next start.

    Args:
        name: in the log and the metric `background_work_died_total`.
        longest: pause, seconds.
    """
    died = DIED.labels(name)  # at once, so that the series is there before the first time

    async def supervised() -> None:
        for pause in backoff(min(1.0, longest), longest):
            try:
                return await work()
            except Exception:
                log.get().exception("background work died", work=name)
                died.inc()
            await asyncio.sleep(pause)

    return asyncio.create_task(supervised(), name=name)
