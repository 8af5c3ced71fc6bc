"""What can be done with accounts."""

import hashlib
import math
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from auth.accounts import LoginLimit, RefreshToken, User, check_password, normalise_email
from auth.passwords import Passwords
from auth.store import Store
from stack.contract import Tokens
from stack.problems import Problem
from stack.tokens import InvalidToken, Keys, Principal


def digest_of(token: str) -> bytes:
    """What is kept of a refresh token. It is random, so it needs no slow hash."""
    return hashlib.sha256(token.encode()).digest()


class Accounts:
    """Registration, logins and their tokens.

    Args:
        refresh: how long a login lasts without a password.
        limit: how many logins may be tried.
    """

    def __init__(
        self, store: Store, passwords: Passwords, keys: Keys, *, refresh: timedelta, limit: LoginLimit
    ) -> None:
        self._store, self._passwords, self._keys = store, passwords, keys
        self._refresh, self._limit = refresh, limit

    async def register(self, email: str, password: str) -> User:
        """A new account with the role `user`.

        Raises:
            Problem: 409, the address is taken; 422, address or password will not do.
        """
        address = _field("email", normalise_email, email)
        await self._passwords.run(_field, "password", check_password, password, address)
        user = User(uuid.uuid4(), address, await self._passwords.hash(password), ("user",))
        if not await self._store.add_user(user):
            raise Problem(409, "an account with this address already exists")
        return user

    async def login(self, email: str, password: str, client: str) -> Tokens:
        """Tokens for the right password.

        Args:
            client: where the attempt comes from. Attempts are counted by client, so nobody can use up the owner's.

        Raises:
            Problem: 401, wrong address or password; 429, too many attempts.
        """
        wrong = Problem(401, "wrong e-mail address or password", {"WWW-Authenticate": "Bearer"})
        try:
            address = normalise_email(email)
        except ValueError:
            raise wrong from None
        # Count first, then check the password: parallel attempts cannot pass the limit.
        wait = await self._store.attempt(address, client, self._limit)
        if wait:
            seconds = str(max(1, math.ceil(wait.total_seconds())))
            raise Problem(429, "too many failed logins, try again later", {"Retry-After": seconds})
        user = await self._store.user_by_email(address)
        if not await self._passwords.verify(user.password_hash if user else None, password) or user is None:
            await self._store.note_failure(address, self._limit)
            raise wrong
        await self._store.forget_attempts(address, client)
        if self._passwords.outdated(user.password_hash):
            await self._store.set_password_hash(user.id, await self._passwords.hash(password))
        token = secrets.token_urlsafe(32)
        expires = datetime.now(UTC) + self._refresh
        await self._store.add_token(RefreshToken(uuid.uuid4(), uuid.uuid4(), user.id, digest_of(token), expires))
        return Tokens(access_token=self._sign(user), refresh_token=token)

    async def refresh(self, token: str) -> Tokens:
        """New tokens in exchange for a refresh token, which works once.

        Raises:
            Problem: 401, not valid any more.
        """
        successor = secrets.token_urlsafe(32)
        kept = await self._store.rotate_token(digest_of(token), uuid.uuid4(), digest_of(successor))
        user = await self._store.user_by_id(kept.user_id) if kept else None
        if user is None:
            raise Problem(401, "the session has ended, log in again", {"WWW-Authenticate": "Bearer"})
        return Tokens(access_token=self._sign(user), refresh_token=successor)

    async def logout(self, token: str) -> None:
        """End the login that the refresh token comes from."""
        await self._store.revoke_family(digest_of(token))

    async def me(self, access_token: str) -> User:
        """The account that an access token speaks for, as it is now.

        Raises:
            Problem: 401, no valid token.
        """
        try:
            principal = self._keys.verify(access_token)
        except InvalidToken:
            raise Problem(401, "log in first", {"WWW-Authenticate": "Bearer"}) from None
        user = await self._store.user_by_id(principal.id)
        if user is None:
            raise Problem(401, "this account no longer exists", {"WWW-Authenticate": "Bearer"})
        return user

    def _sign(self, user: User) -> str:
        return self._keys.sign(Principal(user.id, user.email, frozenset(user.roles)))


def _field(name: str, rule: Callable[..., str], *values: str) -> str:
    try:
        return rule(*values)
    except ValueError as error:
        message = str(error)
        raise Problem(422, f"{name}: {message}", errors=[{"field": name, "message": message}]) from None
