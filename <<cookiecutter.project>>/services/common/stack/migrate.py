"""Bring the schemas of all services up to date: `python -m stack migrate`."""

import os
import time
from importlib import import_module
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, exc, pool, text

from stack import log
from stack.database import connection_arguments, is_connection_failure
from stack.settings import DatabaseSettings, Secret, load
from stack.waiting import backoff

LOCK = 0x5EED_0DB5  # any number; the same for everyone who migrates this database


class MigrateSettings(DatabaseSettings):
    """How to reach the database as each owner of a schema."""

    service_name: str = "migrate"
    database_user: str = "per-schema"
    migrate_deadline: float = 120
    auth_db_password: Secret
    api_db_password: Secret
    notification_db_password: Secret


def alembic_config(service: str, connection: Connection | None = None) -> Config:
    """Alembic's configuration for one service: the common environment, the service's own versions."""
    versions = Path(import_module(service).__file__ or "").parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _retryable(error: Exception) -> bool:
    """Connection failures, and a lock that the running application did not give up in time."""
    locked = isinstance(error, exc.DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)
    return locked or is_connection_failure(error)


def upgrade(service: str, connection: Connection) -> tuple[str, str]:
    """Migrate one schema to its newest version. Waits for others who migrate. Returns the versions before and after."""

    def version() -> str:
        exists = connection.execute(text("select to_regclass('alembic_version') is not null")).scalar()
        return connection.execute(text("select version_num from alembic_version")).scalar() or "" if exists else ""

    connection.execute(text("set statement_timeout = 0"))
    connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK})
    # A migration that waits for a lock makes everyone behind it wait too: give up soon, try again.
    connection.execute(text("set lock_timeout = '5s'"))
    connection.commit()
    before = version()
    connection.commit()
    command.upgrade(alembic_config(service, connection), "head")
    connection.commit()
    after = version()
    connection.execute(text("select pg_advisory_unlock(:key)"), {"key": LOCK})
    connection.commit()
    return before, after


def main() -> int:
    """Exit status 0 when every schema is at its newest version."""
    settings = load(MigrateSettings)
    log.configure(settings.service_name, settings.log_level)
    say = log.get()
    services = os.environ.get("MIGRATE", "auth,api,notification").split(",")
    ends = time.monotonic() + settings.migrate_deadline
    for service in services:
        password = getattr(settings, f"{service}_db_password")
        arguments = connection_arguments(settings.model_copy(update={"database_user": service}), password, "read-write")
        # A server that works on a long statement does not see that its client was stopped, unless it looks.
        arguments["options"] = "-c statement_timeout=0 -c client_connection_check_interval=2s"
        engine = create_engine("postgresql+psycopg://", connect_args=arguments, poolclass=pool.NullPool)
        for pause in backoff(0.5, 5.0):
            try:
                started = time.monotonic()
                with engine.connect() as connection:
                    before, after = upgrade(service, connection)
            except Exception as error:
                reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
                if not _retryable(error):
                    say.critical("migration failed", schema=service, error=reason, exc_info=True)
                    return 1
                if time.monotonic() + pause >= ends:
                    waited = round(settings.migrate_deadline)
                    say.critical(f"gave up after {waited} s: {reason}", schema=service, hosts=settings.database_hosts)
                    return 1
                say.warning("waiting for the database", schema=service, error=reason)
                time.sleep(pause)
                continue
            seconds = round(time.monotonic() - started, 2)
            say.info("migrated", schema=service, before=before or None, after=after, changed=before != after, s=seconds)
            break
    return 0
