"""Redis, which the api can do without: a caller learns at once when it is unreachable.

With sentinels every new connection goes to the node that they call the primary. What it answers counts only while it
may also take writes: one that was cut off while the other took its place still has the past.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stack import log
from stack.settings import hosts_of
from stack.waiting import within

T = TypeVar("T")

# Timeout of a request to Redis, and the pause after a failed one (between half and all of it); seconds.
PATIENCE = 0.3
PAUSE = 1.0
# What one sentinel may take: two that are silent leave time for the third.
SENTINEL_PATIENCE = 0.08
# How long a change waits until the replica has it, milliseconds; about one is usual.
CONFIRM_MS = 50
# The name under which the sentinels know the primary (infrastructure/redis/sentinel.sh).
STACK = "stack"


class Away(Exception):
    """Redis is unreachable."""


class Shared:
    """State that all processes of the api share.

    Args:
        sentinel: who decides which Redis is the primary, when somebody does.
    """

    def __init__(self, redis: Redis, sentinel: Sentinel | None = None) -> None:
        self.redis, self._sentinel = redis, sentinel
        self._closed_until = 0.0
        self._unconfirmed_until = 0.0
        self._dropping: asyncio.Task[None] | None = None

    async def do(self, ask: Callable[[Redis], Awaitable[T]]) -> T:
        """The answer to a question.

        Raises:
            Away: no answer within a fraction of a second, or there was none just before.
        """
        if time.monotonic() < self._closed_until:
            raise Away
        try:
            return await within(PATIENCE, _coroutine(ask(self.redis)))
        except (RedisError, OSError, TimeoutError) as error:
            if not self._closed_until:
                log.get().warning("redis is unreachable", error=repr(error))
            self._closed_until = time.monotonic() + random.uniform(PAUSE / 2, PAUSE)  # noqa: S311
            self._drop()
            raise Away from error
        finally:
            if self._closed_until and time.monotonic() >= self._closed_until:
                log.get().info("redis is reachable again")
                self._closed_until = 0.0

    async def get(self, key: str) -> bytes | None:
        """The value of a key, from a Redis that takes writes.

        Raises:
            Away: as of `do`.
        """
        # To Redis GETEX is a write: it is refused where one would be, and changes nothing.
        return cast(bytes | None, await self.do(lambda redis: redis.getex(key)))

    async def change(self, queue: Callable[[Pipeline], object]) -> None:
        """Send the commands that `queue` puts into a pipeline.

        With sentinels they outlive the primary: the replica has them when this returns. Unless none answers; then none
        can take the primary's place either.

        Raises:
            Away: as of `do`.
        """
        confirm = self._sentinel is not None and time.monotonic() >= self._unconfirmed_until

        async def send(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipe:
                queue(pipe)
                if confirm:
                    pipe.execute_command("WAIT", 1, CONFIRM_MS)
                confirmed = (await pipe.execute())[-1]
            if confirm and confirmed == 0:
                self._unconfirmed_until = time.monotonic() + PAUSE

        await self.do(send)

    async def ping(self) -> None:
        """Raise when Redis is unreachable or read-only. For health checks."""
        await self.redis.set("health:api", 1, ex=10)

    def _drop(self) -> None:
        """Close what lies idle in the pool: the others lead to the same place, and the primary may be elsewhere now."""

        async def drop() -> None:
            with contextlib.suppress(Exception):
                await within(PATIENCE, self.redis.connection_pool.disconnect(inuse_connections=False))

        if self._dropping is None or self._dropping.done():
            self._dropping = asyncio.create_task(drop())

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()
        if self._sentinel:
            await self._sentinel.aclose()


async def _coroutine(work: Awaitable[T]) -> T:
    return await work


def connect(host: str, port: int, sentinels: str, password: str, name: str) -> Shared:
    """A client that retries once, immediately, for connections that a restart has closed.

    Args:
        sentinels: host:port, separated by commas; empty when `host` is the primary for ever.
    """
    common: dict[str, Any] = {"password": password, "client_name": name}
    options = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "max_connections": 50, **common}
    options["retry"] = Retry(NoBackoff(), 1)
    if not sentinels:
        return Shared(Redis(host=host, port=port, **options))
    asked = {"socket_timeout": SENTINEL_PATIENCE, "socket_connect_timeout": SENTINEL_PATIENCE, **common}
    asked["retry"] = Retry(NoBackoff(), 0)
    sentinel = Sentinel(hosts_of(sentinels, 26379), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    # Each process asks another one first: they share the work, and not all wait for the same silent one.
    random.shuffle(sentinel.sentinels)
    return Shared(sentinel.master_for(STACK, **options), sentinel)
