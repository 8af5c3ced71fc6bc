"""Redis, which everything works without: whoever asks for something learns at once when it is away."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stack import log
from stack.waiting import within

T = TypeVar("T")

# What one question may take in all, and how long nobody asks again after one failed; seconds.
PATIENCE = 0.3
PAUSE = 1.0


class Away(Exception):
    """No Redis at the moment."""


class Shared:
    """What all processes of the api share."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._closed_until = 0.0

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
                log.get().warning("redis is away", error=repr(error))
            self._closed_until = time.monotonic() + PAUSE
            raise Away from error
        finally:
            if self._closed_until and time.monotonic() >= self._closed_until:
                log.get().info("redis is back")
                self._closed_until = 0.0

    async def ping(self) -> None:
        """Raise when Redis is away. For health checks."""
        await self.redis.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()


async def _coroutine(work: Awaitable[T]) -> T:
    return await work


def connect(host: str, port: int, password: str, name: str) -> Redis:
    """A client that tries once more at once, for connections that a restart has closed, and not again."""
    options: dict[str, Any] = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "max_connections": 50}
    return Redis(host=host, port=port, password=password, client_name=name, retry=Retry(NoBackoff(), 1), **options)
