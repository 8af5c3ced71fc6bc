"""What the tests of all services share: a client of an application, and a private PostgreSQL when there is one."""

import contextlib
import logging
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from stack.database import Database, Role
from stack.migrate import upgrade
from stack.settings import DatabaseSettings

ClientOf = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]

SECRETS = {
    "API_DB_PASSWORD": "db",
    "API_RABBITMQ_PASSWORD": "mq",
    "AUTH_DB_PASSWORD": "db",
    "JWT_SECRET": "a" * 64,
    "JWT_SECRET_PREVIOUS": "",
    "NOTIFICATION_DB_PASSWORD": "db",
    "NOTIFICATION_RABBITMQ_PASSWORD": "mq",
    "REDIS_PASSWORD": "redis",
}


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Forget where a test has sent the logs: pytest closes the stream that it captures with."""
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every secret, used in place of /run/secrets."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, value in SECRETS.items():
        (folder / name).write_text(f"{value}\n")
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    return folder


@pytest.fixture
def client_of() -> ClientOf:
    """`async with client_of(app) as client`: the application started, without a network."""

    @asynccontextmanager
    async def start(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="https://example.com") as client,
        ):
            yield client

    return start


@dataclass(frozen=True)
class Cluster:
    """A primary and a standby that follows it, each in a folder with its socket."""

    primary: Path
    standby: Path

    def settings(self, user: str) -> DatabaseSettings:
        """Both hosts, as the given owner of a schema."""
        hosts = f"{self.standby}:5432,{self.primary}:5432"
        return DatabaseSettings(database_hosts=hosts, database_name="appdb", database_user=user, database_pool=6)

    def database(self, user: str, role: Role = "read-write") -> Database:
        """A pool, as the services have it."""
        return Database(self.settings(user), SecretStr(""), role)

    def execute(self, statement: str, *, standby: bool = False) -> None:
        """A statement as superuser."""
        host = str(self.standby if standby else self.primary)
        with psycopg.connect(host=host, dbname="appdb", user="admin", autocommit=True) as connection:
            connection.execute(statement)

    def caught_up(self) -> None:
        """Wait until the standby has replayed everything."""
        with psycopg.connect(host=str(self.primary), dbname="appdb", user="admin", autocommit=True) as connection:
            for _ in range(200):
                query = "select count(*) from pg_stat_replication where replay_lsn >= pg_current_wal_lsn()"
                if connection.execute(query).fetchone() == (1,):
                    return
                time.sleep(0.05)
        raise AssertionError("the standby does not catch up")


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    path = shutil.which("postgres")
    return Path(path).parent if path else None


def _account() -> str | None:
    """PostgreSQL refuses to run as root: use its own account then."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no account `postgres` to run it as")


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = _binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    account = _account()
    # A socket's path may have about 100 characters, less than pytest's folders take.
    base = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    if account:
        shutil.chown(base, account)
    data, copy, primary, standby = base / "data", base / "copy", base / "p", base / "s"

    def run(*argv: str | Path) -> None:
        subprocess.run(
            [str(a) for a in argv], check=True, user=account, cwd=base, stdout=subprocess.DEVNULL, timeout=120
        )

    def start(data: Path, socket: Path) -> None:
        run("mkdir", socket)
        options = f"-c listen_addresses= -c unix_socket_directories={socket} -c fsync=off -c hot_standby_feedback=on"
        run(folder / "pg_ctl", "-D", data, "-w", "-l", f"{data}.log", "-o", options, "start")

    try:
        run(folder / "initdb", "-D", data, "-U", "admin", "--auth=trust", "-E", "UTF8", "--no-sync")
        start(data, primary)
        run(folder / "pg_basebackup", "-h", primary, "-U", "admin", "-D", copy, "-R", "-c", "fast", "--no-sync")
        start(copy, standby)
        run(folder / "createdb", "-h", primary, "-U", "admin", "appdb")
        cluster = Cluster(primary, standby)
        for name in ("auth", "api", "notification"):
            cluster.execute(f"create role {name} login")
            cluster.execute(f"create schema {name} authorization {name}")
            cluster.execute(f"alter role {name} in database appdb set search_path = {name}")
        _migrate(cluster)
        yield cluster
    finally:
        for folder_of in (copy, data):
            with contextlib.suppress(subprocess.CalledProcessError):
                run(folder / "pg_ctl", "-D", folder_of, "-m", "immediate", "stop")
        shutil.rmtree(base, ignore_errors=True)


def _migrate(cluster: Cluster) -> None:
    from sqlalchemy import create_engine, pool

    from stack.database import connection_arguments

    for name in ("auth", "api", "notification"):
        arguments = connection_arguments(cluster.settings(name), SecretStr(""), "read-write")
        engine = create_engine("postgresql+psycopg://", connect_args=arguments, poolclass=pool.NullPool)
        with engine.connect() as connection:
            assert upgrade(name, connection) == ("", "0001")
            assert upgrade(name, connection) == ("0001", "0001")


@pytest.fixture
def cluster(_servers: Cluster) -> Cluster:
    """A migrated PostgreSQL with a standby, with empty tables."""
    _servers.execute(
        "truncate auth.users, auth.refresh_tokens, auth.login_failures, api.items, api.outbox, api.idempotency, "
        "notification.deliveries"
    )
    return _servers
