"""Read-your-writes: where in the primary's log a person's last write is.

A replica that has replayed this position has everything the person wrote. The position is in Redis, because the next
request may be served by another process. When Redis does not answer, reads use the primary.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stack import log
from stack.waiting import backoff

# A position is kept this long, in seconds. A replica further behind is not read from at all (`api.reads`), so a
# position that has been forgotten cannot matter.
KEEP_SECONDS = 120

# Two writes may arrive out of order: only ever forward. Hexadecimal of fixed width compares like the number.
_ADVANCE = """
local old = redis.call('GET', KEYS[1])
if not old or old < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
"""


class Positions:
    """The last write of each person."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._advance: Any = redis.register_script(_ADVANCE)
        self._pending: set[asyncio.Task[None]] = set()

    @staticmethod
    def _key(person: uuid.UUID) -> str:
        return f"position:{person}"

    async def _set(self, people: set[uuid.UUID], position: int) -> None:
        for person in people:
            await self._advance(keys=[self._key(person)], args=[f"{position:016x}", KEEP_SECONDS])

    async def remember(self, people: set[uuid.UUID], position: Callable[[], Awaitable[int]]) -> None:
        """Note the log position after a commit that these people must see. Never raises: the write has succeeded.

        When Redis is away it is noted as soon as Redis is back; until then readers cannot reach Redis either and use
        the primary.
        """
        try:
            await self._set(people, await position())
        except Exception as error:
            log.get().warning("position not noted yet", error=repr(error))
            task = asyncio.create_task(self._later(people, position))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _later(self, people: set[uuid.UUID], position: Callable[[], Awaitable[int]]) -> None:
        for pause in backoff(0.05, 0.5):
            await asyncio.sleep(pause)
            try:
                return await self._set(people, await position())
            except Exception:  # noqa: S112, BLE001
                continue

    async def of(self, person: uuid.UUID) -> int | None:
        """The position a replica must have reached; 0 when any will do; None when nobody knows."""
        try:
            value = await self._redis.get(self._key(person))
        except (RedisError, OSError, TimeoutError):
            return None
        return int(value, 16) if value else 0
