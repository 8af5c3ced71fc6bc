"""Read-your-writes: where in the primary's log a person's last write is.

A replica that has replayed this position has everything the person wrote. The position is in Redis, because the next
request may be served by another process. When Redis does not answer, reads use the primary.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from api.shared import PAUSE, Away, Shared
from stack import log

# A replica further behind than this is not read from at all (`api.reads`), so an older position cannot matter; seconds.
MAX_LAG_SECONDS = 30
# A position is kept this long. When its memory is full, Redis gives up what would expire first: one that still matters
# has more time left than any cached item, so it goes last.
KEEP_SECONDS = 120
MAX_CACHE_SECONDS = KEEP_SECONDS - MAX_LAG_SECONDS

# Two writes may arrive out of order: only ever forward. Hexadecimal of fixed width compares like the number.
_ADVANCE = """
for _, key in ipairs(KEYS) do
  local old = redis.call('GET', key)
  if not old or old < ARGV[1] then redis.call('SET', key, ARGV[1], 'EX', ARGV[2]) end
end
"""

Position = Callable[[], Awaitable[int]]
"""Asks the primary where its log ends now."""


class Positions:
    """The last write of each person."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._owed: set[uuid.UUID] = set()
        self._paying: asyncio.Task[None] | None = None

    @staticmethod
    def _key(person: uuid.UUID) -> str:
        return f"position:{person}"

    async def _set(self, people: set[uuid.UUID], position: int) -> None:
        keys = [self._key(person) for person in people]
        await self._shared.change(
            lambda pipe: pipe.eval(_ADVANCE, len(keys), *keys, f"{position:016x}", KEEP_SECONDS),
        )

    async def remember(self, people: set[uuid.UUID], position: Position) -> None:
        """Note the log position after a commit that these people must see. Never raises: the write has succeeded.

        When Redis is away it is noted as soon as Redis is back. Until then readers that cannot reach Redis either use
        the primary; one that can, while this process cannot, may see the replica's older state.
        """
        try:
            await self._set(people, await position())
        except Exception as error:
            if not isinstance(error, Away):
                log.get().warning("position not noted yet", error=repr(error))
            self._owed |= people
            if self._paying is None or self._paying.done():
                self._paying = asyncio.create_task(self._pay(position))

    async def _pay(self, position: Position) -> None:
        while self._owed:
            await asyncio.sleep(PAUSE / 2)
            people, self._owed = self._owed, set()
            try:
                await self._set(people, await position())  # later than all their commits
            except Exception:
                self._owed |= people

    async def of(self, person: uuid.UUID) -> int | None:
        """The position a replica must have reached; 0 for any position; None when unknown."""
        if person in self._owed:
            return None
        try:
            value = await self._shared.get(self._key(person))
        except Away:
            return None
        return int(value, 16) if value else 0

    async def close(self) -> None:
        """Stop noting."""
        if self._paying:
            self._paying.cancel()
