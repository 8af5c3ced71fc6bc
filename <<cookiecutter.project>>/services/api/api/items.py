"""What an item is."""

import os
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Item:
    """One item of one person."""

    id: uuid.UUID
    owner_id: uuid.UUID
    owner_email: str
    title: str
    body: str
    created_at: datetime
    updated_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Its representation in JSON."""
        return {
            "id": str(self.id),
            "owner_id": str(self.owner_id),
            "owner_email": self.owner_email,
            "title": self.title,
            "body": self.body,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Item":
        """The inverse of `as_json`."""
        return cls(
            id=uuid.UUID(value["id"]),
            owner_id=uuid.UUID(value["owner_id"]),
            owner_email=value["owner_email"],
            title=value["title"],
            body=value["body"],
            created_at=datetime.fromisoformat(value["created_at"]),
            updated_at=datetime.fromisoformat(value["updated_at"]),
        )


@dataclass(frozen=True)
class Event:
    """Something that happened. Consumers recognise duplicates by its id."""

    id: uuid.UUID
    type: str
    payload: dict[str, Any]
    request_id: str


def event(kind: str, item: Item, request_id: str) -> Event:
    """The event that describes a change of an item."""
    number = uuid.uuid4()
    data = {
        "item_id": str(item.id),
        "title": item.title,
        "owner_id": str(item.owner_id),
        "owner_email": item.owner_email,
    }
    payload = {"id": str(number), "type": kind, "occurred_at": item.updated_at.isoformat(), "data": data}
    return Event(number, kind, payload, request_id)


def uuid7() -> uuid.UUID:
    """A version 7 id: 48 bits of milliseconds, 12 of their fraction, then random bits; so ids made by one process one
    after the other are in order. (The standard library has it from 3.14 on.)"""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | (rest * 4096 // 1_000_000) << 64 | int.from_bytes(os.urandom(8), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
