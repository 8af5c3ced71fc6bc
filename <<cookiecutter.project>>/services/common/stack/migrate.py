"""Bring schemas up to date: `python -m stack migrate`. The variable MIGRATE names the services, separated by commas."""

import os
import re
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from pydantic import create_model
from sqlalchemy import Connection, create_engine, exc, pool, text

from stack import log
from stack.database import connection_arguments, is_connection_failure
from stack.settings import DatabaseSettings, Secret, load
from stack.waiting import backoff

_REFUSED = re.compile(r"password authentication failed|no password supplied|no pg_hba\.conf entry")
# A first boot sets the passwords a moment after the server begins to answer.
REFUSED_SECONDS = 5.0
LOCK = 0x5EED_0DB5  # any number; the same for everyone who migrates this database


class MigrateSettings(DatabaseSettings):
    """How to reach the database as each owner of a schema."""

    service_name: str = "migrate"
    database_user: str = "per-schema"
    migrate_deadline: float = 120


def settings_of(services: Sequence[str]) -> type[MigrateSettings]:
    """The settings with the password of each owner, which is called as its service: the secret SHOP_DB_PASSWORD."""
    passwords: dict[str, Any] = {f"{service}_db_password": (Secret, ...) for service in services}
    return create_model("MigrateSettings", __base__=MigrateSettings, **passwords)


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
    """Connection failures, and a lock that the running application did not release in time."""
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
    """Exit status 0 when every schema is at its newest version. The last line says why it is not."""
    services = os.environ.get("MIGRATE", "").replace(",", " ").split()
    settings = load(settings_of(services))
    log.configure(settings.service_name, settings.log_level)
    if not services:
        log.get().critical("setting MIGRATE is missing: the services whose schemas are migrated, such as shop,stock")
        return 1
    ends = time.monotonic() + settings.migrate_deadline
    return 0 if all(_migrate(service, settings, ends) for service in services) else 1


def _migrate(service: str, settings: MigrateSettings, ends: float) -> bool:
    """Migrate one schema as its owner; wait for the database until `ends`."""
    say = log.get().bind(schema=service)
    password = getattr(settings, f"{service}_db_password")
    arguments = connection_arguments(settings.model_copy(update={"database_user": service}), password, "read-write")
    # A server that works on a long statement does not see that its client was stopped, unless it looks.
    arguments["options"] = "-c statement_timeout=0 -c client_connection_check_interval=2s"
    engine = create_engine("postgresql+psycopg://", connect_args=arguments, poolclass=pool.NullPool)
    told, refused_at = "", 0.0
    for pause in backoff(0.5, 5.0):
        started = time.monotonic()
        try:
            with engine.connect() as connection:
                before, after = upgrade(service, connection)
        except Exception as error:
            reason = _reason(error)
            refused_at = refused_at or started if _refused(error) else 0.0
            if refused_at and started - refused_at >= REFUSED_SECONDS:
                secret = f"{service.upper()}_DB_PASSWORD"
                say.critical(
                    f"PostgreSQL does not accept the password in secret {secret} for the role {service}: {reason}"
                )
                return False
            if not _retryable(error):
                say.error("traceback of the failed migration", exc_info=True)
                say.critical(f"migration failed: {reason}")
                return False
            if time.monotonic() + pause >= ends:
                waited = round(settings.migrate_deadline)
                say.critical(f"gave up after {waited} s: {reason}", hosts=settings.database_hosts)
                return False
            if reason != told:
                say.warning("waiting for the database", error=reason)
                told = reason
            time.sleep(pause)
            continue
        seconds = round(time.monotonic() - started, 2)
        say.info("migrated", before=before or None, after=after, changed=before != after, s=seconds)
        return True
    raise AssertionError("backoff never ends")


def _reason(error: Exception) -> str:
    """What went wrong, in one line. Of several servers that were tried it is what the last one said that counts."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    tried = [line.strip() for line in lines if "connection to server" in line]
    return (tried[-1:] or lines[:1] or [type(error).__name__])[0]


def _refused(error: Exception) -> bool:
    """Whether a server answered and did not let us in. It has no code for a client that is not connected yet."""
    return isinstance(error, exc.DBAPIError) and bool(_REFUSED.search(_reason(error)))
