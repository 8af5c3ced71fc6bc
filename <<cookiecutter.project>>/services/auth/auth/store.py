"""The store of accounts and tokens: its protocol, and the implementation on PostgreSQL."""

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import LoginLimit, RefreshToken, User
from auth.tables import login_failures, refresh_tokens, users
from stack.database import Database


class Store(Protocol):
    """Every method is one transaction and idempotent."""

    async def add_user(self, user: User) -> bool:
        """Keep a new account. False when the address is taken."""

    async def user_by_email(self, email: str) -> User | None:
        """The account of an address."""

    async def user_by_id(self, user_id: uuid.UUID) -> User | None:
        """The account of an id."""

    async def set_password_hash(self, user_id: uuid.UUID, encoded: str) -> None:
        """Replace the hash, for instance by one with today's parameters."""

    async def set_roles(self, email: str, roles: Sequence[str]) -> bool:
        """Replace an account's roles. False when there is no such account."""

    async def add_token(self, token: RefreshToken) -> None:
        """Keep a new refresh token."""

    async def rotate_token(self, digest: bytes, successor: uuid.UUID, successor_digest: bytes) -> RefreshToken | None:
        """Exchange a valid token for its successor, which is returned.

        None when the token is unknown or out of date. When it was used before, its whole family is revoked: one of the
        two who hold it has stolen it.
        """

    async def revoke_family(self, digest: bytes) -> None:
        """End the login that a token comes from."""

    async def attempt(self, email: str, client: str, limit: LoginLimit) -> timedelta | None:
        """Count a login attempt. None if it is allowed, else how long to wait; a refused attempt is not counted."""

    async def note_failure(self, email: str, limit: LoginLimit) -> None:
        """Count a failed login of an account, from any client."""

    async def forget_attempts(self, email: str, client: str) -> None:
        """Reset a client's count after a login."""

    async def clean(self, window: timedelta) -> None:
        """Delete what is out of date."""


def _account(email: str) -> bytes:
    return hashlib.sha256(email.encode()).digest()


def _pair(email: str, client: str) -> bytes:
    return hashlib.sha256(f"{email}\n{client}".encode()).digest()


def _user(row: sa.Row[Any] | None) -> User | None:
    return User(row.id, row.email, row.password_hash, tuple(row.roles)) if row else None


class PostgresStore:
    """The store in the schema `auth`.

    Args:
        standby: says who somebody is while the primary is away.
    """

    def __init__(self, database: Database, standby: Database | None = None) -> None:
        self._run = database.run
        self._read = partial(database.read, standby=standby) if standby else database.run

    async def add_user(self, user: User) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            values = {"id": user.id, "email": user.email, "password_hash": user.password_hash, "roles": [*user.roles]}
            await connection.execute(insert(users).values(values).on_conflict_do_nothing())
            owner = await connection.scalar(sa.select(users.c.id).where(users.c.email == user.email))
            return owner == user.id

        return await self._run(work)

    async def user_by_email(self, email: str) -> User | None:
        async def work(connection: AsyncConnection) -> User | None:
            return _user((await connection.execute(sa.select(users).where(users.c.email == email))).first())

        return await self._run(work)

    async def user_by_id(self, user_id: uuid.UUID) -> User | None:
        async def work(connection: AsyncConnection) -> User | None:
            return _user((await connection.execute(sa.select(users).where(users.c.id == user_id))).first())

        return await self._read(work)

    async def set_password_hash(self, user_id: uuid.UUID, encoded: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.update(users).where(users.c.id == user_id).values(password_hash=encoded))

        await self._run(work)

    async def set_roles(self, email: str, roles: Sequence[str]) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            done = await connection.execute(sa.update(users).where(users.c.email == email).values(roles=[*roles]))
            return done.rowcount == 1

        return await self._run(work)

    async def add_token(self, token: RefreshToken) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(refresh_tokens).values(_token_values(token)).on_conflict_do_nothing())

        await self._run(work)

    async def rotate_token(self, digest: bytes, successor: uuid.UUID, successor_digest: bytes) -> RefreshToken | None:
        table = refresh_tokens

        async def work(connection: AsyncConnection) -> RefreshToken | None:
            found = sa.select(table).where(table.c.digest == digest).with_for_update()
            row = (await connection.execute(found)).first()
            if row is None or row.revoked or row.expires_at <= datetime.now(UTC):
                return None
            token = RefreshToken(successor, row.family, row.user_id, successor_digest, row.expires_at)
            if row.replaced_by == successor:  # our own earlier attempt, whose commit was not acknowledged
                return token
            if row.replaced_by is not None:
                await connection.execute(sa.update(table).where(table.c.family == row.family).values(revoked=True))
                return None
            await connection.execute(sa.update(table).where(table.c.id == row.id).values(replaced_by=successor))
            await connection.execute(insert(table).values(_token_values(token)))
            return token

        return await self._run(work)

    async def revoke_family(self, digest: bytes) -> None:
        table = refresh_tokens
        family = sa.select(table.c.family).where(table.c.digest == digest).scalar_subquery()

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.update(table).where(table.c.family == family).values(revoked=True))

        await self._run(work)

    async def attempt(self, email: str, client: str, limit: LoginLimit) -> timedelta | None:
        table, pair, now = login_failures, _pair(email, client), sa.func.now()
        old = table.c.since < now - limit.window

        async def work(connection: AsyncConnection) -> timedelta | None:
            of_all = sa.select(table.c.failures).where(table.c.account == _account(email), sa.not_(old))
            guessing = (await connection.scalar(of_all) or 0) >= limit.account_failures
            free = 1 if guessing else limit.attempts
            doubled = sa.func.power(2, sa.func.least(table.c.failures - free, 20))
            wait = sa.case(
                (table.c.failures < free, sa.literal(timedelta())),
                else_=sa.func.least(
                    sa.literal(limit.window), sa.literal(limit.first_wait).op("*")(doubled), type_=sa.Interval
                ),
            )
            # One statement, so that of many attempts at once each sees those before it.
            count = (
                insert(table)
                .values(account=pair, failures=1, since=now)
                .on_conflict_do_update(
                    index_elements=[table.c.account],
                    set_={"failures": sa.case((old, 1), else_=table.c.failures + 1), "since": now},
                    where=sa.or_(old, table.c.since + wait <= now),
                )
                .returning(table.c.account)
            )
            if (await connection.execute(count)).first():
                return None
            left: timedelta | None = await connection.scalar(
                sa.select(table.c.since + wait - now).where(table.c.account == pair)
            )
            return left

        return await self._run(work)

    async def note_failure(self, email: str, limit: LoginLimit) -> None:
        table = login_failures

        async def work(connection: AsyncConnection) -> None:
            now = sa.func.now()
            fresh = insert(table).values(account=_account(email), failures=1, since=now)
            old = table.c.since < now - limit.window
            await connection.execute(
                fresh.on_conflict_do_update(
                    index_elements=[table.c.account],
                    set_={
                        "failures": sa.case((old, 1), else_=table.c.failures + 1),
                        "since": sa.case((old, now), else_=table.c.since),
                    },
                )
            )

        await self._run(work)

    async def forget_attempts(self, email: str, client: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(login_failures).where(login_failures.c.account == _pair(email, client)))

        await self._run(work)

    async def clean(self, window: timedelta) -> None:
        async def work(connection: AsyncConnection) -> None:
            now = sa.func.now()
            await connection.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.expires_at < now))
            await connection.execute(sa.delete(login_failures).where(login_failures.c.since < now - window))

        await self._run(work)


def _token_values(token: RefreshToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "family": token.family,
        "user_id": token.user_id,
        "digest": token.digest,
        "expires_at": token.expires_at,
    }
