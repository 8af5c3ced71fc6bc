"""Password hashing off the event loop."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple, Unpack

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH, MAX_LENGTH = 12, 256
T = TypeVar("T")
A = TypeVarTuple("A")


class Passwords:
    """Argon2id with OWASP's minimum: 19 MiB and two passes on one lane, some 30 ms of one core.

    Each hash holds its memory for its duration, so the number of threads is what bounds the memory.

    Args:
        threads: hashes computed at the same time; the rest waits in line.
    """

    def __init__(self, hasher: PasswordHasher | None = None, threads: int | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._pool = ThreadPoolExecutor(threads or min(2, os.cpu_count() or 1), thread_name_prefix="argon2")
        # Compared with when there is no such account, so that the time taken does not tell.
        self._decoy = self._hasher.hash(os.urandom(16).hex())

    async def run(self, work: Callable[[Unpack[A]], T], *arguments: *A) -> T:
        """The result of `work`, which keeps a processor busy, in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def hash(self, password: str) -> str:
        """An encoded hash."""
        return await self.run(self._hasher.hash, password)

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Whether the password is right. Takes as long when there is nothing to compare it with."""
        right = await self.run(self._verify, encoded or self._decoy, password)
        return right and encoded is not None

    def _verify(self, encoded: str, password: str) -> bool:
        try:
            return self._hasher.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return False

    def outdated(self, encoded: str) -> bool:
        """Whether the hash was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
