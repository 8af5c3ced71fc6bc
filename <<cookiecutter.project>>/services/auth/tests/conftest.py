import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher

from auth.accounts import LoginLimit, RefreshToken, User
from auth.passwords import Passwords


class MemoryStore:
    """The store's protocol over two dictionaries."""

    def __init__(self) -> None:
        self.users: dict[uuid.UUID, User] = {}
        self.tokens: dict[bytes, RefreshToken] = {}
        self.failed: dict[tuple[str, ...], tuple[int, datetime]] = {}

    async def add_user(self, user: User) -> bool:
        other = await self.user_by_email(user.email)
        if other:
            return other.id == user.id
        self.users[user.id] = user
        return True

    async def user_by_email(self, email: str) -> User | None:
        return next((user for user in self.users.values() if user.email == email), None)

    async def user_by_id(self, user_id: uuid.UUID) -> User | None:
        return self.users.get(user_id)

    async def set_password_hash(self, user_id: uuid.UUID, encoded: str) -> None:
        self.users[user_id] = replace(self.users[user_id], password_hash=encoded)

    async def set_roles(self, email: str, roles: Sequence[str]) -> bool:
        user = await self.user_by_email(email)
        if user:
            self.users[user.id] = replace(user, roles=tuple(roles))
        return user is not None

    async def add_token(self, token: RefreshToken) -> None:
        self.tokens[token.digest] = token

    async def rotate_token(self, digest: bytes, successor: uuid.UUID, successor_digest: bytes) -> RefreshToken | None:
        token = self.tokens.get(digest)
        if token is None or token.revoked or token.expires_at <= datetime.now(UTC):
            return None
        if token.replaced_by is not None:
            await self.revoke_family(digest)
            return None
        self.tokens[digest] = replace(token, replaced_by=successor)
        self.tokens[successor_digest] = replace(token, id=successor, digest=successor_digest)
        return self.tokens[successor_digest]

    async def revoke_family(self, digest: bytes) -> None:
        if digest in self.tokens:
            family = self.tokens[digest].family
            same = {key: replace(t, revoked=True) for key, t in self.tokens.items() if t.family == family}
            self.tokens.update(same)

    async def attempt(self, email: str, client: str, limit: LoginLimit) -> timedelta | None:
        now = datetime.now(UTC)
        free = 1 if self.failed.get((email,), (0, now))[0] >= limit.account_failures else limit.attempts
        count, since = self.failed.get((email, client), (0, now))
        wait = limit.first_wait * 2 ** (count - free) if count >= free else timedelta()
        if since + min(wait, limit.window) > now:
            return since + min(wait, limit.window) - now
        self.failed[email, client] = (count + 1, now)
        return None

    async def note_failure(self, email: str, limit: LoginLimit) -> None:
        count, since = self.failed.get((email,), (0, datetime.now(UTC)))
        self.failed[email,] = (count + 1, since)

    async def forget_attempts(self, email: str, client: str) -> None:
        self.failed.pop((email, client), None)

    async def clean(self, window: timedelta) -> None:
        return


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def passwords():
    made = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    yield made
    made.close()
