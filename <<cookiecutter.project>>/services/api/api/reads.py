"""Reads from the replica if it is reachable, current enough and has what the reader wrote; else from the primary."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import sqlalchemy as sa
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from api.position import MAX_LAG_SECONDS, Positions
from stack import log
from stack.database import Database
from stack.waiting import within

T = TypeVar("T")
Source = Literal["primary", "replica"]

READS = Counter("database_reads_total", "Reads by where they were made.", ["source"])
USABLE = Gauge("database_replica_usable", "1 if reads may go to the replica.")

PROBE_SECONDS = 2.0
# How long a read waits for the replica before it goes to the primary.
REPLICA_SECONDS = 1.0

_REPLAYED = sa.text("select case when pg_is_in_recovery() then (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint end")
WRITTEN = sa.text("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")


class Behind(Exception):
    """The replica has not replayed the reader's last write yet."""


class ReplicaWatch:
    """Whether the replica can be read from: it answers, and does not lag too far.

    Knows by itself, so that no request ever waits for a replica that is away.
    """

    def __init__(self, primary: Database, replica: Database) -> None:
        self._primary, self._replica = primary, replica
        self._marks: deque[tuple[float, int]] = deque(maxlen=int(MAX_LAG_SECONDS / PROBE_SECONDS) + 2)
        self.usable = False

    async def run(self) -> None:
        """Look regularly until cancelled."""
        while True:
            before = self.usable
            try:
                self._set(await within(REPLICA_SECONDS * 4, self._look()))
            except Exception as error:
                self._set(False)
                if before:
                    log.get().warning("replica is unreachable; reading from the primary", error=repr(error))
            if self.usable and not before:
                log.get().info("replica is usable")
            await asyncio.sleep(PROBE_SECONDS)

    def suspend(self) -> None:
        """A read failed: do not read there until the next look."""
        self._set(False)

    def _set(self, usable: bool) -> None:
        self.usable = usable
        USABLE.set(usable)

    async def _look(self) -> bool:
        async def replayed(connection: AsyncConnection) -> int | None:
            position: int | None = await connection.scalar(_REPLAYED)
            return position

        async def written(connection: AsyncConnection) -> int:
            position: int = await connection.scalar(WRITTEN)
            return position

        here = await self._replica.once(replayed)
        try:
            self._marks.append((time.monotonic(), await within(REPLICA_SECONDS, self._primary.once(written))))
        except Exception:
            log.get().debug("primary did not report its position")
        return here is not None and near_enough(here, time.monotonic(), self._marks)


def near_enough(replayed: int, now: float, marks: deque[tuple[float, int]]) -> bool:
    """Whether everything older than the allowed lag has been replayed.

    Args:
        marks: (time, position) of the primary, oldest first.
    """
    old = [position for moment, position in marks if now - moment >= MAX_LAG_SECONDS]
    return replayed >= (old[-1] if old else min((position for _, position in marks), default=0))


class Reader:
    """Chooses where to read."""

    def __init__(self, primary: Database, replica: Database, positions: Positions, watch: ReplicaWatch) -> None:
        self._primary, self._replica, self._positions, self._watch = primary, replica, positions, watch

    async def read(
        self, person: uuid.UUID, work: Callable[[AsyncConnection], Awaitable[T]], *, primary: bool = False
    ) -> tuple[T, Source]:
        """The result of `work`, and where it ran.

        Args:
            person: whose own writes must be seen.
            primary: do not ask the replica.
        """
        needed = await self._positions.of(person) if self._watch.usable and not primary else None
        if needed is not None:

            async def on_replica(connection: AsyncConnection) -> T:
                if needed:
                    replayed = await connection.scalar(_REPLAYED)
                    if replayed is None or replayed < needed:
                        raise Behind
                return await work(connection)

            try:
                result = await within(REPLICA_SECONDS, self._replica.once(on_replica))
                READS.labels("replica").inc()
                return result, "replica"
            except Behind:
                pass
            except Exception as error:
                self._watch.suspend()
                log.get().warning("read failed on the replica; reading from the primary", error=repr(error))
        result = await self._primary.run(work)
        READS.labels("primary").inc()
        return result, "primary"
