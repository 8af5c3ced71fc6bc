"""Cache-aside of single items. Without Redis everything works, only slower."""

import json
import uuid
from typing import Literal

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.items import Item

Outcome = Literal["hit", "miss", "bypass"]
LOOKUPS = Counter("cache_lookups_total", "Lookups of single items by outcome.", ["outcome"])

# Marks an item that has just changed. While it stands nobody can fill in what they read before the change, nor what a
# replica that lags still has. As long as the longest lag of a replica that is read from.
_CHANGED = b"!"
CHANGED_SECONDS = 60
_AWAY = (RedisError, OSError, TimeoutError)


class Cache:
    """Items by id.

    Args:
        seconds: how long an item is kept.
    """

    def __init__(self, redis: Redis, seconds: int) -> None:
        self._redis, self._seconds = redis, seconds

    @staticmethod
    def _key(item_id: uuid.UUID) -> str:
        return f"item:{item_id}"

    async def get(self, item_id: uuid.UUID) -> tuple[Item | None, Outcome]:
        """The item if it is there. `bypass`: Redis is away, or the item has just changed: ask the primary."""
        item, outcome = await self._get(item_id)
        LOOKUPS.labels(outcome).inc()
        return item, outcome

    async def _get(self, item_id: uuid.UUID) -> tuple[Item | None, Outcome]:
        try:
            value = await self._redis.get(self._key(item_id))
        except _AWAY:
            return None, "bypass"
        if value is None:
            return None, "miss"
        if value == _CHANGED:
            return None, "bypass"
        return Item.from_json(json.loads(value)), "hit"

    async def fill(self, item: Item) -> None:
        """Keep an item that was read."""
        try:
            await self._redis.set(self._key(item.id), json.dumps(item.as_json()), ex=self._seconds, nx=True)
        except _AWAY:
            return

    async def changed(self, item_id: uuid.UUID) -> None:
        """Forget an item that is about to change, or has changed."""
        try:
            await self._redis.set(self._key(item_id), _CHANGED, ex=CHANGED_SECONDS)
        except _AWAY:
            return
