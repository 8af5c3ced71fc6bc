import uuid
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from api.items import Event, Item
from api.store import Written, fingerprint
from stack.problems import Problem
from stack.tokens import Keys, Principal


@dataclass
class MemoryStore:
    """The store's protocol over dictionaries."""

    items: dict[uuid.UUID, Item] = field(default_factory=dict)
    keys: dict[tuple[uuid.UUID, str], tuple[bytes, Item]] = field(default_factory=dict)
    told: list[Event] = field(default_factory=list)
    reads: int = 0

    async def create(self, item: Item, told: Event, key: str | None) -> Written:
        if key:
            kept, first = self.keys.setdefault((item.owner_id, key), (fingerprint(item), item))
            if kept != fingerprint(item):
                raise Problem(422, "this Idempotency-Key was used for another request")
            if first is not item:
                return Written(first, repeated=True)
        self.items[item.id] = item
        self.told.append(told)
        return Written(item)

    async def change(self, item: Item, told: Event, by: uuid.UUID) -> bool:
        if item.id not in self.items:
            return False
        self.items[item.id] = item
        self.told.append(told)
        return True

    async def delete(self, item: Item, told: Event, by: uuid.UUID) -> bool:
        self.told.append(told)
        return self.items.pop(item.id, None) is not None

    async def get(self, item_id, owner, reader, *, primary=False):
        self.reads += 1
        item = self.items.get(item_id)
        return (item if item and owner in (None, item.owner_id) else None), ("primary" if primary else "replica")

    async def list(self, owner, reader, limit, before):
        found = [i for i in self.items.values() if owner in (None, i.owner_id) and (not before or i.id < before)]
        return sorted(found, key=lambda i: i.id, reverse=True)[:limit], "replica"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def _headers(email: str, *roles: str) -> dict[str, str]:
    token = Keys(SecretStr("a" * 64)).sign(Principal(uuid.uuid5(uuid.NAMESPACE_DNS, email), email, frozenset(roles)))
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def ann() -> dict[str, str]:
    """Headers of an ordinary person."""
    return _headers("ann@example.com", "user")


@pytest.fixture
def bob() -> dict[str, str]:
    """Headers of another one."""
    return _headers("bob@example.com", "user")


@pytest.fixture
def root() -> dict[str, str]:
    """Headers of an admin."""
    return _headers("root@example.com", "user", "admin")


@pytest.fixture
def environment(secrets, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What the api needs to be told to start."""
    for name in ("DATABASE_HOSTS", "REDIS_HOST", "RABBITMQ_HOSTS"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AUTH_URL", "http://internal:8081/auth-service")
    return monkeypatch
