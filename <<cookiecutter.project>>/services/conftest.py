"""What the tests of all services share: a client of an application, and a private PostgreSQL when there is one."""

import base64
import contextlib
import itertools
import json
import logging
import os
import pwd
import random
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

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
# The packages here that migrate a schema, which has their name.
SCHEMAS = sorted(
    folder.parent.name for folder in Path(__file__).parent.glob("*/*/migrations") if find_spec(folder.parent.name)
)


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


# Values that somebody sends who wants a service to fail: no bytes of any header, query, form or document may.
HOSTILE_BYTES = [
    *(b"\xc3\xa9", b"Z\xfcrich", b"\xff\xfe", b"\xed\xa0\x80", bytes(range(0x80, 0x100)), b"\t", b"a\tb", b"\x7f"),
    *(b"", b"[", b"http://[", b"http://[::1", b"%", b"%zz", b"%00", b"%0d%0aX: y", b"%ED%A0%80", b"%F0%28%8C%BC"),
    *(
        b"a" * 5000,
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"nan",
        b"\xd9\xa3",
        b"*",
        b"../../x",
        b"null",
        b"0",
        b"None",
        b"=",
        b";",
    ),
]
# What a server never lets into a header, but a form or a document may hold.
HOSTILE_TEXTS = [
    *(
        "\0",
        "a\0b",
        "a\r\nX: y",
        "\r",
        "\n",
        "\x7f",
        "\x1b[2J",
        "\u202e",
        "\ufffe",
        "\U0010ffff",
        "é" * 300,
        "Z\u0308" * 200,
    ),
    *(
        "=?utf-8?q?victim=40evil.com=2c?=",
        "{{7*7}}",
        "${x}",
        "%(x)s",
        "{x}",
        "<b>",
        "' or 1=1 --",
        "\ud800",
        "a\udfffb",
    ),
]
HOSTILE_DOCUMENTS = [
    *(
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"a":',
        b"NaN",
        b"[" * 50_000,
        b'{"a":' * 50_000,
    ),
    *(b"1" * 5000, b'{"\\ud800": 1}', "{}".encode("utf-16"), b'{"a": 1, "a": 2}', b"a=b", b"\0"),
    *(b"&" * 1000, b"a=b&" * 21, b"=" * 1000, b"x" * 70_000),
]
_HEADERS = [
    *(b"accept", b"accept-language", b"authorization", b"connection", b"content-encoding", b"content-length"),
    *(
        b"content-type",
        b"cookie",
        b"forwarded",
        b"host",
        b"idempotency-key",
        b"if-range",
        b"origin",
        b"range",
        b"referer",
    ),
    *(b"sec-fetch-site", b"te", b"user-agent", b"x-anything", b"x-forwarded-for", b"x-real-ip", b"x-request-id"),
]


Headers = list[tuple[bytes, bytes]]
Request = tuple[str, str, bytes, Headers, bytes]
"""Method, path, query, headers, body."""


@dataclass(frozen=True)
class Attack:
    """Sends hostile requests to every route of an application, past what a client or a server would refuse by itself.

    Args:
        headers: that let a request in.
        example: fields of a form or a document that would be accepted.
        stored: send only what can get into a database, not every header.
    """

    app: FastAPI
    headers: Headers
    example: dict[str, str]
    as_form: bool
    stored: bool = False

    async def failures(self) -> list[str]:
        """The requests that the application failed to answer properly."""
        failed = []
        for method, path, query, headers, body in self._requests():
            status, seen = await self._send(method, path, query, headers, body)
            page = status < 300 or status >= 400 or not seen
            if not 200 <= status < 500 or (self.as_form and page and status >= 400 and b"text/html" not in seen):
                failed.append(
                    f"{status} {seen!r} {method} {path[:60]!r} ?{query[:40]!r} {headers!r:.300} {body[:80]!r}"
                )
        return failed

    def _requests(self) -> Iterator[Request]:
        kind = b"application/x-www-form-urlencoded" if self.as_form else b"application/json"
        usual = [*self.headers, (b"content-type", kind)]
        for method, template in self._routes():
            path = re.sub(r"{[^}]*}", "00000000-0000-4000-8000-000000000000", template)
            for name, value in itertools.product(self.example, HOSTILE_TEXTS):
                yield method, path, b"", usual, self._encoded(self.example | {name: value})
            if not self.stored:
                yield from self._heads(method, path, template, usual)
                for body in HOSTILE_DOCUMENTS:
                    yield method, path, b"", usual, body

    def _heads(self, method: str, path: str, template: str, usual: Headers) -> Iterator[Request]:
        good, dice = self._encoded(self.example), random.Random(1)
        several = ((name, dice.choice(HOSTILE_BYTES)) for name in _HEADERS for _ in range(3))
        for name, value in itertools.chain(several, ((b"x-anything", value) for value in HOSTILE_BYTES)):
            yield method, path, b"", [*((n, v) for n, v in usual if n != name), (name, value)], good
        for cookie in (b"__Host-access", b"__Host-refresh"):
            for value in (b'"a\\012X: y"', b"\xc3\xa9", b"x." + self._token() + b".x", b"a" * 300):
                yield method, path, b"", [*usual, (b"cookie", cookie + b"=" + value)], good
        for boundary in (b"", b"=", b"=x", b'="', b"=" + b"x" * 5000, b"=\xff"):
            form = (b"content-type", b"multipart/form-data; boundary" + boundary)
            yield method, path, b"", [*self.headers, form], b"--x"
        for value in HOSTILE_BYTES:
            query = b"&".join(name + b"=" + value for name in (b"before", b"done", b"fresh", b"limit", b"next", b""))
            yield method, path, query, usual, good
            # as a server decodes it
            yield method, re.sub(r"{[^}]*}", unquote(value.decode("latin-1")), template), b"", usual, good

    @staticmethod
    def _token() -> bytes:
        return base64.urlsafe_b64encode(b'{"email": "\\ud800", "exp": 1e12, "x": ' + b"[" * 5000).rstrip(b"=")

    def _routes(self) -> Iterator[tuple[str, str]]:
        found = [
            (method, route.path)
            for router in filter(None, (getattr(route, "original_router", None) for route in self.app.routes))
            for route in router.routes
            if not route.path.startswith(("/health", "/metrics"))
            for method in sorted(route.methods)
        ]
        assert found
        yield from found

    def _encoded(self, fields: dict[str, str]) -> bytes:
        if self.as_form:
            return urlencode(fields, errors="surrogatepass").encode()
        return json.dumps(fields).encode()

    async def _send(self, method: str, path: str, query: bytes, headers: Headers, body: bytes) -> tuple[int, bytes]:
        status, kind = 0, b""
        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""},
            **{"method": method, "path": path, "raw_path": path.encode(errors="replace"), "query_string": query},
            **{"headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}},
        }
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = dict(message["headers"]).get(b"content-type", b"")

        await self.app(scope, receive, send)
        return status, kind


@pytest.fixture
def attack() -> type[Attack]:
    """`await attack(app, headers, example, as_form=…).failures()`, with the application started."""
    return Attack


@dataclass(frozen=True)
class Cluster:
    """A primary and a standby that follows it, each in a folder with its socket. The database `locked` asks everybody
    for a password."""

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
        hba = data / "pg_hba.conf"
        hba.write_text("local locked all scram-sha-256\n" + hba.read_text())
        start(data, primary)
        run(folder / "pg_basebackup", "-h", primary, "-U", "admin", "-D", copy, "-R", "-c", "fast", "--no-sync")
        start(copy, standby)
        for name in ("appdb", "locked"):
            run(folder / "createdb", "-h", primary, "-U", "admin", name)
        cluster = Cluster(primary, standby)
        for name in ("shop", *SCHEMAS):
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

    for name in SCHEMAS:
        arguments = connection_arguments(cluster.settings(name), SecretStr(""), "read-write")
        engine = create_engine("postgresql+psycopg://", connect_args=arguments, poolclass=pool.NullPool)
        with engine.connect() as connection:
            assert upgrade(name, connection) == ("", "0001")
            assert upgrade(name, connection) == ("0001", "0001")


@pytest.fixture
def cluster(_servers: Cluster) -> Cluster:
    """A migrated PostgreSQL with a standby, with empty tables; the schema `shop` is no service's, and has none."""
    _servers.execute(
        "do $$ begin execute (select coalesce('truncate ' || string_agg(format('%I.%I', schemaname, tablename), ', '), "
        "'select') from pg_tables where schemaname = tableowner and tablename <> 'alembic_version'); end $$"
    )
    return _servers
