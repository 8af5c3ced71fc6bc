"""The api: gateway to the auth service, and the items."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from redis.asyncio import Redis

from api import gateway, routes
from api.cache import Cache
from api.outbox import RabbitPublisher, Relay
from api.position import Positions
from api.reads import Reader, ReplicaWatch
from api.settings import ApiSettings
from api.shared import Shared, connect
from api.store import PostgresStore, Store
from stack import background, log
from stack.app import frame
from stack.database import Database
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.settings import load
from stack.tokens import Keys


def create_app(
    settings: ApiSettings | None = None,
    *,
    store: Store | None = None,
    redis: Redis | None = None,
    auth: httpx.AsyncClient | None = None,
) -> FastAPI:
    """The application.

    Args:
        store: in place of PostgreSQL and RabbitMQ, for tests.
        redis: in place of a real Redis, for tests.
        auth: in place of the network, for tests.
    """
    settings = settings or load(ApiSettings)
    log.configure(settings.service_name, settings.log_level)
    health = Health(settings.service_name, Lifecycle())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        password = settings.redis_password.get_secret_value()
        where = (settings.redis_host, settings.redis_port, settings.redis_sentinels)
        shared = Shared(redis) if redis else connect(*where, password, settings.service_name)
        state.auth = auth or gateway.client(settings.auth_url, settings.auth_timeout)
        state.keys = Keys(settings.jwt_secret, settings.jwt_secret_previous)
        state.cache = Cache(shared, settings.cache_seconds)

        async def ping_auth() -> None:
            (await state.auth.get("/health/ready")).raise_for_status()

        tasks: list[asyncio.Task[None]] = []
        closing: list[Any] = []
        if store:
            state.store, state.wake = store, lambda: None
        else:
            primary = Database(settings, settings.live("api_db_password"))
            replica = Database(settings, settings.live("api_db_password"), "standby")
            watch, positions = ReplicaWatch(primary, replica), Positions(shared)
            publisher = RabbitPublisher(settings, settings.live("api_rabbitmq_password"))
            relay = Relay(primary, publisher)
            state.store = PostgresStore(primary, Reader(primary, replica, positions, watch), positions)
            state.wake = relay.wake

            async def replica_usable() -> None:
                if not watch.usable:
                    raise ConnectionError("replica is lagging or unreachable; reading from the primary")

            health.add("database", primary.ping)
            health.add("database-replica", replica_usable, required=False)
            health.add("rabbitmq", publisher.ping, required=False)
            work = {"replica watch": watch.run, "outbox relay": relay.run, "outbox cleaning": relay.clean}
            tasks = [background.start(name, each) for name, each in work.items()]
            closing = [positions, publisher, primary, replica]
        health.add("redis", shared.ping, required=False)
        health.add("auth", ping_auth, required=False)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for resource in closing:
            await resource.close()
        await state.auth.aclose()
        await shared.close()

    return frame(settings, health, lifespan, gateway.routes, routes.routes, openapi_url="/api/v1/openapi.json")
