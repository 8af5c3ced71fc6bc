import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from notification.store import Claim


class MemoryStore:
    """The store's protocol over a dictionary."""

    def __init__(self) -> None:
        self.state: dict[uuid.UUID, str] = {}
        self.holders: dict[uuid.UUID, uuid.UUID] = {}

    async def claim(self, event_id: uuid.UUID, holder: uuid.UUID) -> Claim:
        if event_id in self.state:
            return Claim.DONE
        if self.holders.setdefault(event_id, holder) != holder:
            return Claim.BUSY
        return Claim.GRANTED

    async def finish(self, event_id: uuid.UUID, state: str) -> None:
        self.state[event_id] = state
        self.holders.pop(event_id, None)

    async def release(self, event_id: uuid.UUID, holder: uuid.UUID) -> None:
        if self.holders.get(event_id) == holder:
            del self.holders[event_id]

    async def clean(self) -> None:
        return


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def message() -> Callable[..., bytes]:
    """A message as the api sends it."""

    def make(event_id: uuid.UUID | None = None, kind: str = "item.created", **data: Any) -> bytes:
        values = {
            "item_id": str(uuid.uuid4()),
            "title": "A title",
            "owner_id": str(uuid.uuid4()),
            "owner_email": "ann@example.com",
            **data,
        }
        event = {"id": str(event_id or uuid.uuid4()), "type": kind, "occurred_at": "2026-11-23T10:00:00+00:00"}
        return json.dumps({**event, "data": values}).encode()

    return make
