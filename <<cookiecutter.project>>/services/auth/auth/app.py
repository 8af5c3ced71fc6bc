"""The auth service: /v1/auth/*."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request

from auth.accounts import LoginLimit, User, client_of
from auth.passwords import Passwords
from auth.service import Accounts
from auth.settings import AuthSettings
from auth.store import PostgresStore, Store
from stack import background, log
from stack.app import frame
from stack.contract import Account, Credentials, RefreshRequest, Tokens
from stack.database import Database
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.settings import load
from stack.tokens import Keys, bearer

CLEAN_SECONDS = 3600


async def _accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


AccountsOf = Annotated[Accounts, Depends(_accounts)]
routes = APIRouter()


def _shown(user: User) -> Account:
    return Account(id=str(user.id), email=user.email, roles=list(user.roles))


@routes.post("/v1/auth/register", status_code=201)
async def register(credentials: Credentials, accounts: AccountsOf) -> Account:
    """Open an account."""
    return _shown(await accounts.register(credentials.email, credentials.password))


@routes.post("/v1/auth/login")
async def login(
    credentials: Credentials,
    accounts: AccountsOf,
    x_forwarded_for: Annotated[str, Header(include_in_schema=False)] = "",
) -> Tokens:
    """Exchange a password for tokens."""
    return await accounts.login(credentials.email, credentials.password, client_of(x_forwarded_for))


@routes.post("/v1/auth/refresh")
async def refresh(body: RefreshRequest, accounts: AccountsOf) -> Tokens:
    """Exchange a refresh token for new tokens."""
    return await accounts.refresh(body.refresh_token)


@routes.post("/v1/auth/logout", status_code=204)
async def logout(body: RefreshRequest, accounts: AccountsOf) -> None:
    """End a login."""
    await accounts.logout(body.refresh_token)


@routes.get("/v1/auth/me")
async def me(accounts: AccountsOf, authorization: Annotated[str | None, Header()] = None) -> Account:
    """The account that the access token speaks for."""
    return _shown(await accounts.me(bearer(authorization)))


async def _clean_regularly(store: Store, window: timedelta) -> None:
    while True:
        await asyncio.sleep(CLEAN_SECONDS)
        try:
            await store.clean(window)
        except Exception as error:
            log.get().warning("cleaning failed", error=repr(error))


def create_app(settings: AuthSettings | None = None, store: Store | None = None) -> FastAPI:
    """The application.

    Args:
        store: in place of PostgreSQL, for tests.
    """
    settings = settings or load(AuthSettings)
    log.configure(settings.service_name, settings.log_level)
    health = Health(settings.service_name, Lifecycle())
    window = timedelta(seconds=settings.login_window_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        databases: list[Database] = []
        kept: Any = store
        if not store:
            primary = Database(settings, settings.live("auth_db_password"))
            standby = Database(settings, settings.live("auth_db_password"), "standby")
            databases, kept = [primary, standby], PostgresStore(primary, standby)
            health.add("database", primary.ping)
            # Keeps a connection open as well, for when the names of the servers cannot be looked up.
            health.add("database-replica", standby.ping, required=False)
        passwords = Passwords()
        app.state.accounts = Accounts(
            kept,
            passwords,
            Keys(settings.jwt_secret, settings.jwt_secret_previous),
            refresh=timedelta(days=settings.refresh_days),
            limit=LoginLimit(settings.login_attempts, window),
        )
        cleaning = background.start("cleaning", lambda: _clean_regularly(kept, window))
        yield
        cleaning.cancel()
        passwords.close()
        for database in databases:
            await database.close()

    return frame(settings, health, lifespan, routes)
