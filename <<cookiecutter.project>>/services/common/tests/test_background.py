import asyncio

import pytest

from stack import background


async def test_work_that_fails_begins_again_until_it_returns() -> None:
    begun = []

    async def work() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise KeyError("a mistake")

    before = background.DIED.labels("trial")._value.get()
    await asyncio.wait_for(background.start("trial", work, longest=0.01), 5)
    assert len(begun) == 3
    assert background.DIED.labels("trial")._value.get() == before + 2


async def test_cancelled_work_does_not_begin_again() -> None:
    begun = []

    async def work() -> None:
        begun.append(1)
        await asyncio.sleep(30)

    task = background.start("trial", work, longest=0.01)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == [1]
