"""Cache-aside of single items. Without Redis everything works, only slower."""

import json
import uuid
from contextlib import suppress
from typing import Literal

from prometheus_client import Counter

from api.items import Item
from api.shared import Away, Shared

Outcome = Literal["hit", "miss", "bypass"]
LOOKUPS = Counter("cache_lookups_total", "Lookups of single items by outcome.", ["outcome"])

# Marks an item that has just changed. While it stands nobody can fill in what they read before the change, nor what a
# replica that lags still has. As long as the longest lag of a replica that is read from.
_CHANGED = b"!"
CHANGED_SECONDS = 60


class Cache:
    """Items by id.

    Args:
        seconds: how long an item is kept.
    """

    def __init__(self, shared: Shared, seconds: int) -> None:
        self._shared, self._seconds = shared, seconds

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
            value = await self._shared.do(lambda redis: redis.get(self._key(item_id)))
        except Away:
            return None, "bypass"
        if value is None:
            return None, "miss"
        if value == _CHANGED:
            return None, "bypass"
        return Item.from_json(json.loads(value)), "hit"

    async def fill(self, item: Item) -> None:
        """Keep an item that was read."""
        value = json.dumps(item.as_json())
        with suppress(Away):
            await self._shared.do(lambda redis: redis.set(self._key(item.id), value, ex=self._seconds, nx=True))

    async def changed(self, item_id: uuid.UUID) -> None:
        """Forget an item that is about to change, or has changed."""
        with suppress(Away):
            await self._shared.do(lambda redis: redis.set(self._key(item_id), _CHANGED, ex=CHANGED_SECONDS))
