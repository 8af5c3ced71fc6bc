"""Which events have been handled: the protocol, and the implementation on PostgreSQL."""

import enum
import uuid
from datetime import timedelta
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stack.database import Database

metadata = sa.MetaData()
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("event_id", UUID, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    # Who works on it, and until when others leave it alone.
    sa.Column("holder", UUID),
    sa.Column("leased_until", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Index("deliveries_updated_at", "updated_at"),
)

# Longer than handing over a mail may take, so that nobody else starts with it meanwhile.
LEASE = timedelta(seconds=120)
KEPT = timedelta(days=30)


class Claim(enum.Enum):
    """The answer to: may I send the mail of this event?"""

    GRANTED = "granted"
    DONE = "done"
    BUSY = "busy"


class Store(Protocol):
    """Every method may be repeated with the same arguments."""

    async def claim(self, event_id: uuid.UUID, holder: uuid.UUID) -> Claim:
        """Claim an event, unless it has been handled or another process is working on it."""

    async def finish(self, event_id: uuid.UUID, state: str) -> None:
        """Record an event as handled: `sent` or `dead`."""

    async def release(self, event_id: uuid.UUID, holder: uuid.UUID) -> None:
        """Release an event for other processes."""

    async def clean(self) -> None:
        """Delete records of events that cannot be delivered again."""


class PostgresStore:
    """The table in the schema `notification`."""

    def __init__(self, database: Database) -> None:
        self._run = database.run

    async def claim(self, event_id: uuid.UUID, holder: uuid.UUID) -> Claim:
        table, now = deliveries, sa.func.now()
        values = {"state": "claimed", "holder": holder, "leased_until": now + LEASE, "updated_at": now}
        free = sa.and_(table.c.state == "claimed", sa.or_(table.c.leased_until < now, table.c.holder == holder))

        async def work(connection: AsyncConnection) -> Claim:
            mine = (
                insert(table)
                .values(event_id=event_id, **values)
                .on_conflict_do_update(index_elements=[table.c.event_id], set_=values, where=free)
                .returning(table.c.event_id)
            )
            if (await connection.execute(mine)).first():
                return Claim.GRANTED
            state = await connection.scalar(sa.select(table.c.state).where(table.c.event_id == event_id))
            return Claim.BUSY if state == "claimed" else Claim.DONE

        return await self._run(work)

    async def finish(self, event_id: uuid.UUID, state: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            values = {"state": state, "holder": None, "leased_until": None, "updated_at": sa.func.now()}
            fresh = insert(deliveries).values(event_id=event_id, **values)
            await connection.execute(fresh.on_conflict_do_update(index_elements=[deliveries.c.event_id], set_=values))

        await self._run(work)

    async def release(self, event_id: uuid.UUID, holder: uuid.UUID) -> None:
        async def work(connection: AsyncConnection) -> None:
            mine = (deliveries.c.event_id == event_id, deliveries.c.holder == holder)
            await connection.execute(sa.update(deliveries).where(*mine).values(leased_until=sa.func.now()))

        await self._run(work)

    async def clean(self) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(deliveries).where(deliveries.c.updated_at < sa.func.now() - KEPT))

        await self._run(work)
