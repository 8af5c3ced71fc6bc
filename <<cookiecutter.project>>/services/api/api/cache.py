"""Cache-aside of single items. Without Redis everything works, only slower."""

import json
import uuid
from contextlib import suppress
from typing import Literal

from prometheus_client import Counter

from api.items import Item
from api.position import MAX_LAG_SECONDS
from api.shared import Away, Shared

Outcome = Literal["hit", "miss", "bypass"]
LOOKUPS = Counter("cache_lookups_total", "Lookups of single items by outcome.", ["outcome"])

# Marks an item that has just changed. While it is set, nobody can cache what was read before the change, or what a
# lagging replica still has.
_CHANGED = b"!"


class Cache:
    """Items by id.

    Args:
        seconds: how long an item is kept.
    """

    def __init__(self, shared: Shared, seconds: int) -> None:
        self._shared, self._seconds = shared, seconds
        # Needed for as long as a replica that is read from may lag. When its memory is full, Redis gives up what would
        # expire first: kept longer by the life of an item, a mark that is still needed goes after all items.
        self._changed_seconds = MAX_LAG_SECONDS + seconds

    @staticmethod
    def _key(item_id: uuid.UUID) -> str:
        return f"item:{item_id}"

    async def get(self, item_id: uuid.UUID) -> tuple[Item | None, Outcome]:
        """The item, if cached. `bypass`: Redis is unreachable or the item has just changed; read from the primary."""
        item, outcome = await self._get(item_id)
        LOOKUPS.labels(outcome).inc()
        return item, outcome

    async def _get(self, item_id: uuid.UUID) -> tuple[Item | None, Outcome]:
        try:
            value = await self._shared.get(self._key(item_id))
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
            await self._shared.change(lambda pipe: pipe.set(self._key(item_id), _CHANGED, ex=self._changed_seconds))
