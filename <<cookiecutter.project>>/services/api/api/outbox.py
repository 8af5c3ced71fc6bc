"""Publishes the events of the outbox to the broker, at least once, whatever fails in between."""

import asyncio
import json
import time
from datetime import timedelta
from typing import Protocol

import aio_pika
import sqlalchemy as sa
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import DeliveryError
from prometheus_client import Counter, Gauge
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from api.items import Event
from api.tables import idempotency, outbox
from stack import broker, log
from stack.database import Database
from stack.settings import BrokerSettings
from stack.waiting import backoff, within

PENDING = Gauge("outbox_pending", "Events that wait for the broker.")
PUBLISHED = Counter("outbox_published_total", "Events that the broker has confirmed.")

BATCH = 50
POLL_SECONDS = 1.0
# How often the number of waiting events is measured; the alert on it looks at minutes.
COUNT_SECONDS = 5.0
CONFIRM_SECONDS = 5.0
KEYS_KEPT = timedelta(days=1)
EXCHANGE = "events"


class Publisher(Protocol):
    """Where events go."""

    async def publish(self, events: list[Event]) -> list[Event]:
        """Send events; returns those that the broker has confirmed.

        Raises:
            Exception: the broker is unreachable.
        """

    async def close(self) -> None:
        """Disconnect."""


class RabbitPublisher:
    """The exchange `events`, with publisher confirms. A message that no queue takes is returned and not confirmed."""

    def __init__(self, settings: BrokerSettings, password: SecretStr) -> None:
        self._settings, self._password = settings, password
        self._connection: AbstractConnection | None = None
        self._exchange: aio_pika.abc.AbstractExchange | None = None

    async def _open(self) -> aio_pika.abc.AbstractExchange:
        if self._exchange is None or self._connection is None or self._connection.is_closed:
            await self.close()
            self._connection = await broker.connect(self._settings, self._password)
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        return self._exchange

    async def publish(self, events: list[Event]) -> list[Event]:
        try:
            exchange = await self._open()
            results = await asyncio.gather(
                *(
                    exchange.publish(_message(event), event.type, mandatory=True, timeout=CONFIRM_SECONDS)
                    for event in events
                ),
                return_exceptions=True,
            )
        except BaseException:
            await self.close()
            raise
        refused = [r for r in results if isinstance(r, BaseException)]
        broken = [r for r in refused if not isinstance(r, DeliveryError)]
        if broken:
            await self.close()
            if len(broken) == len(events):
                raise broken[0]
        return [event for event, r in zip(events, results, strict=True) if not isinstance(r, BaseException)]

    async def ping(self) -> None:
        """Raise when the broker is unreachable. For health checks."""
        if self._connection is None or self._connection.is_closed:
            await self._open()

    async def close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection and not connection.is_closed:
            try:
                await within(2, _close(connection))
            except Exception as error:
                log.get().debug("connection not closed", error=repr(error))


async def _close(connection: AbstractConnection) -> None:
    await connection.close()


def _message(event: Event) -> aio_pika.Message:
    return aio_pika.Message(
        json.dumps(event.payload).encode(),
        content_type="application/json",
        message_id=str(event.id),
        type=event.type,
        headers={"request_id": event.request_id},
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


class Relay:
    """Moves events from the outbox to the broker. Several can run: each skips the rows that another has locked."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database, self._publisher = database, publisher
        self._wake = asyncio.Event()
        self._counted = -COUNT_SECONDS

    def wake(self) -> None:
        """Something was committed: do not wait for the next poll."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        pauses = backoff(0.5, 15)
        while True:
            self._wake.clear()
            try:
                taken = await self._database.once(self._batch)
                pauses = backoff(0.5, 15)
            except Exception as error:
                log.get().warning("outbox is waiting", error=repr(error))
                await asyncio.sleep(next(pauses))
                continue
            finally:
                await self._count()
            if taken == BATCH:
                continue
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _batch(self, connection: AsyncConnection) -> int:
        due = (
            sa.select(outbox)
            .where(outbox.c.due_at <= sa.func.now())
            .order_by(outbox.c.due_at, outbox.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = (await connection.execute(due)).all()
        if not rows:
            return 0
        events = [Event(row.id, row.type, row.payload, row.request_id) for row in rows]
        taken = {event.id for event in await self._publisher.publish(events)}
        if taken:
            await connection.execute(sa.delete(outbox).where(outbox.c.id.in_(taken)))
            PUBLISHED.inc(len(taken))
        refused = [row.id for row in rows if row.id not in taken]
        if refused:
            # No queue took them. Retry later, with growing delays up to an hour, so that they do not block the others.
            log.get().error("events rejected by the broker", count=len(refused), first=str(refused[0]))
            delay = sa.func.least(sa.func.power(2, outbox.c.attempts), 3600) * sa.text("interval '1 second'")
            later = {"attempts": outbox.c.attempts + 1, "due_at": sa.func.now() + delay}
            await connection.execute(sa.update(outbox).where(outbox.c.id.in_(refused)).values(later))
        return len(rows)

    async def _count(self) -> None:
        if time.monotonic() - self._counted < COUNT_SECONDS:
            return
        self._counted = time.monotonic()

        async def work(connection: AsyncConnection) -> int:
            # An estimate is too vague for an alert, and counting a long outbox in full is too expensive.
            some = sa.select(sa.literal(1)).select_from(outbox).limit(10_000).subquery()
            return await connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0

        try:
            PENDING.set(await self._database.once(work))
        except Exception:
            log.get().debug("outbox not counted")

    async def clean(self) -> None:
        """Forget old idempotency keys, every hour, until cancelled."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(idempotency).where(idempotency.c.created_at < sa.func.now() - KEYS_KEPT))

        while True:
            await asyncio.sleep(3600)
            try:
                await self._database.once(work)
            except Exception as error:
                log.get().warning("cleaning failed", error=repr(error))
