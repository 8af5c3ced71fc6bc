"""The store of items: writes go to the primary, with the event in the same transaction; reads go to either server."""

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from api.items import Event, Item
from api.position import Positions
from api.reads import WRITTEN, Reader, Source
from api.tables import idempotency, items, outbox
from stack.database import Database, Work
from stack.problems import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """The outcome of a write: the item, and whether an earlier request with the same key had made it."""

    item: Item
    repeated: bool = False


class Store(Protocol):
    """What the routes need. With `owner` None, items of all owners."""

    async def create(self, item: Item, told: Event, key: str | None) -> Written:
        """Store a new item. A repeated idempotency key returns the first result.

        Raises:
            Problem: 422, the key was used for something else.
        """

    async def change(self, item: Item, told: Event, by: uuid.UUID) -> bool:
        """Replace title and body. False when it is gone."""

    async def delete(self, item: Item, told: Event, by: uuid.UUID) -> bool:
        """Remove an item. False when it was gone."""

    async def get(
        self, item_id: uuid.UUID, owner: uuid.UUID | None, reader: uuid.UUID, *, primary: bool = False
    ) -> tuple[Item | None, Source]:
        """One item, and where it was read."""

    async def list(
        self, owner: uuid.UUID | None, reader: uuid.UUID, limit: int, before: uuid.UUID | None
    ) -> tuple[list[Item], Source]:
        """The newest items that are older than `before`, newest first."""


def fingerprint(item: Item) -> bytes:
    """What makes two requests the same request."""
    return hashlib.sha256(json.dumps([item.title, item.body]).encode()).digest()


def _item(row: sa.Row[Any]) -> Item:
    return Item(row.id, row.owner_id, row.owner_email, row.title, row.body, row.created_at, row.updated_at)


class PostgresStore:
    """Items in the schema `api`."""

    def __init__(self, primary: Database, reader: Reader, positions: Positions) -> None:
        self._primary, self._reader, self._positions = primary, reader, positions

    async def _write(self, people: set[uuid.UUID], work: Work[T]) -> T:
        result = await self._primary.run(work)

        async def position(connection: AsyncConnection) -> int:
            written: int = await connection.scalar(WRITTEN)
            return written

        # Everything of this transaction lies before where the log ends now.
        await self._positions.remember(people, lambda: self._primary.run(position))
        return result

    async def create(self, item: Item, told: Event, key: str | None) -> Written:
        async def work(connection: AsyncConnection) -> Written:
            if key:
                claim = {"owner_id": item.owner_id, "key": key, "fingerprint": fingerprint(item)}
                await connection.execute(
                    insert(idempotency).values(**claim, item_id=item.id, answer=item.as_json()).on_conflict_do_nothing()
                )
                mine = (idempotency.c.owner_id == item.owner_id, idempotency.c.key == key)
                kept = (await connection.execute(sa.select(idempotency).where(*mine))).one()
                if kept.fingerprint != claim["fingerprint"]:
                    raise Problem(422, "this Idempotency-Key was used for another request")
                if kept.item_id != item.id:
                    return Written(Item.from_json(kept.answer), repeated=True)
            await connection.execute(insert(items).values(asdict(item)).on_conflict_do_nothing())
            await _tell(connection, told)
            return Written(item)

        return await self._write({item.owner_id}, work)

    async def change(self, item: Item, told: Event, by: uuid.UUID) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            values = {"title": item.title, "body": item.body, "updated_at": item.updated_at}
            done = await connection.execute(sa.update(items).where(items.c.id == item.id).values(values))
            if done.rowcount:
                await _tell(connection, told)
            return bool(done.rowcount)

        return await self._write({item.owner_id, by}, work)

    async def delete(self, item: Item, told: Event, by: uuid.UUID) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            done = await connection.execute(sa.delete(items).where(items.c.id == item.id))
            if done.rowcount:
                await _tell(connection, told)
            return bool(done.rowcount)

        return await self._write({item.owner_id, by}, work)

    async def get(
        self, item_id: uuid.UUID, owner: uuid.UUID | None, reader: uuid.UUID, *, primary: bool = False
    ) -> tuple[Item | None, Source]:
        query = sa.select(items).where(items.c.id == item_id)
        if owner:
            query = query.where(items.c.owner_id == owner)

        async def work(connection: AsyncConnection) -> Item | None:
            row = (await connection.execute(query)).first()
            return _item(row) if row else None

        return await self._reader.read(reader, work, primary=primary)

    async def list(
        self, owner: uuid.UUID | None, reader: uuid.UUID, limit: int, before: uuid.UUID | None
    ) -> tuple[list[Item], Source]:
        query = sa.select(items).order_by(items.c.id.desc()).limit(limit)
        if owner:
            query = query.where(items.c.owner_id == owner)
        if before:
            query = query.where(items.c.id < before)

        async def work(connection: AsyncConnection) -> list[Item]:
            return [_item(row) for row in await connection.execute(query)]

        return await self._reader.read(reader, work)


async def _tell(connection: AsyncConnection, told: Event) -> None:
    await connection.execute(insert(outbox).values(asdict(told)).on_conflict_do_nothing())
