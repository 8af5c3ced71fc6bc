import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher

from auth.accounts import RefreshToken, User
from auth.passwords import Passwords


class MemoryStore:
    """The store's protocol over two dictionaries."""

    def __init__(self) -> None:
        self.users: dict[uuid.UUID, User] = {}
        self.tokens: dict[bytes, RefreshToken] = {}
        self.failed: dict[str, tuple[int, datetime]] = {}

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

    async def failures(self, email: str, window: timedelta) -> tuple[int, timedelta]:
        count, since = self.failed.get(email, (0, datetime.now(UTC)))
        left = since + window - datetime.now(UTC)
        return (count, left) if left > timedelta() else (0, timedelta())

    async def note_failure(self, email: str, window: timedelta) -> None:
        count, _ = await self.failures(email, window)
        since = self.failed[email][1] if count else datetime.now(UTC)
        self.failed[email] = (count + 1, since)

    async def forget_failures(self, email: str) -> None:
        self.failed.pop(email, None)

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
