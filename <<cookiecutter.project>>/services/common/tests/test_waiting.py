import asyncio
import itertools
import time

import pytest

from stack.waiting import backoff, within


async def test_within_gives_the_result() -> None:
    async def work() -> int:
        return 7

    assert await within(1, work()) == 7


async def test_within_passes_errors_on() -> None:
    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await within(1, work())


async def test_within_does_not_wait_for_work_that_resists_cancelling() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(1)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await within(0.1, stubborn())
    assert time.monotonic() - began < 0.5


def test_backoff_grows_to_its_limit() -> None:
    pauses = list(itertools.islice(backoff(0.1, 1.0), 20))
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.5 <= pause <= 1.0 for pause in pauses[5:])
