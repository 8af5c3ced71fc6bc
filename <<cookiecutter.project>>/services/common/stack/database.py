"""PostgreSQL: several hosts, short timeouts, retries within a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import psycopg
from pydantic import SecretStr
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from stack import log
from stack.problems import Unavailable
from stack.settings import DatabaseSettings, hosts_of
from stack.waiting import backoff, within

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
Role = Literal["read-write", "standby"]

# While no server with the wanted role can be reached, one attempt in this time: the name of a container that is gone is
# looked up outside, and a DNS server that is asked by every request answers none, not even about names that are there.
ATTEMPT_SECONDS = 0.5
# How long a read waits for the primary before it goes to a standby, if it may be slightly stale.
PRIMARY_SECONDS = 1.0
# 25006: a primary that became a standby still has our connection. 57P0x: the server shuts down or starts.
_RETRYABLE = ("08", "57P01", "57P02", "57P03", "25006", "53300")


def connection_arguments(settings: DatabaseSettings, password: SecretStr, role: Role) -> dict[str, Any]:
    """libpq parameters. Without these timeouts a client hangs for more than a minute when a server stops answering."""
    return {
        **_addresses(hosts_of(settings.database_hosts, 5432)),
        "dbname": settings.database_name,
        "user": settings.database_user,
        "password": password.get_secret_value(),
        "target_session_attrs": role,
        "application_name": settings.service_name,
        "connect_timeout": 3,  # seconds a host
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 8000,  # ms that sent data may stay unacknowledged
        "options": "-c statement_timeout=5s -c lock_timeout=3s -c idle_in_transaction_session_timeout=15s",
    }


def _addresses(hosts: Sequence[tuple[str, int]]) -> dict[str, str]:
    return {"host": ",".join(host for host, _ in hosts), "port": ",".join(str(port) for _, port in hosts)}


def is_connection_failure(error: BaseException) -> bool:
    """True when the connection failed, so a retry may help."""
    if isinstance(error, exc.TimeoutError | TimeoutError | ConnectionError):
        return True
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(original, psycopg.Error):
        return False
    state = original.sqlstate
    return isinstance(original, psycopg.OperationalError) and state is None or (state or "").startswith(_RETRYABLE)


class Database:
    """A pool of connections to the host that has the required role.

    Args:
        role: `read-write` is the primary, `standby` a replica and nothing else.
    """

    def __init__(self, settings: DatabaseSettings, password: SecretStr, role: Role = "read-write") -> None:
        self.deadline = settings.database_deadline
        self.log = log.get()
        self.engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._open,
            # A connection beyond the pool would be opened and closed for one transaction, just when load is highest.
            pool_size=settings.database_pool,
            max_overflow=0,
            pool_timeout=3,
            pool_pre_ping=True,
            pool_recycle=1800,
        )
        self._arguments, self._password = connection_arguments(settings, password, role), password
        self._hosts = hosts_of(settings.database_hosts, 5432)
        self._away, self._reason, self._next_attempt = False, "", 0.0

    async def _open(self) -> psycopg.AsyncConnection:
        """A new connection for the pool. Raises ConnectionError, with the reason, at once if an attempt failed a moment
        ago."""
        if self._away and time.monotonic() < self._next_attempt:
            raise ConnectionError(f"a moment ago: {self._reason}")
        # before the attempt, which may take long
        self._next_attempt = time.monotonic() + ATTEMPT_SECONDS
        try:
            # A rotation changes it in the file and in the database: an attempt between the two is made again.
            arguments = {**self._arguments, "password": self._password.get_secret_value()}
            connection = await psycopg.AsyncConnection.connect(**arguments)
        except psycopg.Error as error:
            self._away, self._reason = is_connection_failure(error), str(error).strip()
            raise
        self._away = False
        # The next attempt starts with this host: a host that does not answer costs three seconds.
        found = (connection.info.host, connection.info.port)
        self._arguments.update(_addresses(sorted(self._hosts, key=lambda host: host != found)))
        return connection

    async def once(self, work: Work[T]) -> T:
        """Run `work` in one transaction, once."""
        async with self.engine.connect() as connection:
            try:
                result = await work(connection)
                await connection.commit()
                return result
            except exc.DBAPIError as error:
                if is_connection_failure(error):
                    await connection.invalidate()
                raise

    async def run(self, work: Work[T], deadline: float | None = None) -> T:
        """Run `work` in a transaction, again after a connection failure, until the deadline.

        `work` must be idempotent: when the answer to a commit is lost, it runs twice.

        Raises:
            Unavailable: the database did not answer in time.
        """
        ends = time.monotonic() + (deadline or self.deadline)
        for pause in backoff():
            try:
                return await within(ends - time.monotonic(), self.once(work))
            except Exception as error:
                if isinstance(error, exc.DBAPIError) and isinstance(error.orig, psycopg.errors.QueryCanceled):
                    raise Unavailable("the database") from error
                if not is_connection_failure(error):
                    raise
                if time.monotonic() + pause >= ends:
                    raise Unavailable("the database") from error
            await asyncio.sleep(pause)
        raise AssertionError("backoff never ends")

    async def read(self, work: Work[T], standby: "Database") -> T:
        """Run `work`, which only reads, on the primary, or on the standby while the primary is unreachable.

        A standby may be behind by a moment, so this is for what changes seldom.

        Raises:
            Unavailable: neither answered in time.
        """
        began = time.monotonic()
        ends = began + self.deadline
        for database, until in ((self, began + PRIMARY_SECONDS), (standby, ends)):
            try:
                return await within(until - time.monotonic(), database.once(work))
            except Exception as error:
                if not is_connection_failure(error):
                    raise
        return await self.run(work, ends - time.monotonic())

    async def ping(self) -> None:
        """Raise when the database is unreachable. For health checks."""

        async def select(connection: AsyncConnection) -> None:
            await connection.execute(text("select 1"))

        await self.once(select)

    async def close(self) -> None:
        """Close the pool, without waiting for a silent server."""
        try:
            await within(2, self.engine.dispose())
        except Exception as error:
            self.log.warning("database pool not closed", error=repr(error))
