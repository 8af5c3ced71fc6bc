"""The notification service: a consumer, with health and metrics beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from notification.consumer import Consumer
from notification.handler import Handler
from notification.mailer import SmtpMailer
from notification.settings import NotificationSettings
from notification.store import PostgresStore, Store
from stack import background, log
from stack.app import frame
from stack.database import Database
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.settings import load

CLEAN_SECONDS = 3600


async def _clean_regularly(store: Store) -> None:
    while True:
        await asyncio.sleep(CLEAN_SECONDS)
        try:
            await store.clean()
        except Exception as error:
            log.get().warning("cleaning failed", error=repr(error))


def create_app(settings: NotificationSettings | None = None) -> FastAPI:
    """The application."""
    settings = settings or load(NotificationSettings)
    log.configure(settings.service_name, settings.log_level)
    lifecycle = Lifecycle()
    health = Health(settings.service_name, lifecycle)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        database = Database(settings, settings.live("notification_db_password"))
        store = PostgresStore(database)
        handler = Handler(
            store,
            SmtpMailer(settings, settings.smtp_password),
            sender=settings.mail_from,
            public_url=settings.public_url,
            max_attempts=settings.max_attempts,
        )
        password = settings.live("notification_rabbitmq_password")
        consumer = Consumer(settings, password, handler, lifecycle, settings.grace_seconds)
        health.add("database", database.ping)
        health.add("rabbitmq", consumer.check)
        consuming = background.start("consumer", consumer.run)
        cleaning = background.start("cleaning", lambda: _clean_regularly(store))
        yield
        lifecycle.drain()
        cleaning.cancel()
        # Messages in progress have the grace period; closing the connection takes a moment more.
        await asyncio.wait({consuming}, timeout=settings.grace_seconds + 5)
        consuming.cancel()
        await database.close()

    return frame(settings, health, lifespan)
