import asyncio
import time

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import exc, text

from stack.database import Database, connection_arguments, is_connection_failure
from stack.problems import Unavailable
from stack.settings import DatabaseSettings, LiveSecret


def settings(hosts: str, **values) -> DatabaseSettings:
    return DatabaseSettings(database_hosts=hosts, database_user="api", **values)


def test_every_connection_has_its_timeouts() -> None:
    arguments = connection_arguments(settings("a,b:5433"), SecretStr("x"), "read-write")
    assert (arguments["host"], arguments["port"]) == ("a,b", "5432,5433")
    assert arguments["target_session_attrs"] == "read-write"
    assert arguments["connect_timeout"] == 3
    assert "statement_timeout=5s" in arguments["options"]
    assert {"tcp_user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count"} < set(arguments)


def wrapped(error: psycopg.Error, invalidated: bool = False) -> exc.DBAPIError:
    return exc.OperationalError("select 1", {}, error, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (psycopg.OperationalError("connection refused"), True),
        (wrapped(psycopg.OperationalError("server closed the connection")), True),
        (wrapped(psycopg.errors.AdminShutdown()), True),
        (wrapped(psycopg.errors.CannotConnectNow()), True),
        (wrapped(psycopg.errors.ReadOnlySqlTransaction()), True),
        (wrapped(psycopg.errors.QueryCanceled()), False),
        (wrapped(psycopg.errors.DeadlockDetected()), False),
        (wrapped(psycopg.errors.UniqueViolation()), False),
        (psycopg.errors.InvalidPassword(), False),
        (exc.TimeoutError(), True),
        (ValueError(), False),
    ],
)
def test_what_is_tried_again(error: Exception, retry: bool) -> None:
    assert is_connection_failure(error) is retry


async def test_a_database_that_is_away_costs_no_more_than_the_deadline(tmp_path) -> None:
    database = Database(settings(str(tmp_path), database_deadline=0.7), SecretStr("x"))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await database.run(lambda connection: connection.execute(text("select 1")))
    assert 0.3 < time.monotonic() - began < 2
    await database.close()


async def test_each_connection_reads_the_password_again(tmp_path, monkeypatch) -> None:
    (tmp_path / "API_DB_PASSWORD").write_text("before")
    used = []

    async def connect(**arguments):
        used.append(arguments["password"])
        raise psycopg.OperationalError("password authentication failed")

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    live = LiveSecret(tmp_path / "API_DB_PASSWORD", SecretStr("before"))
    database = Database(settings("a", database_deadline=1.5), live)
    asyncio.get_running_loop().call_later(0.2, (tmp_path / "API_DB_PASSWORD").write_text, "after")
    with pytest.raises(Unavailable):
        await database.run(lambda connection: connection.execute(text("select 1")))
    assert (used[0], used[-1]) == ("before", "after")
    await database.close()


async def test_a_server_that_is_away_is_not_tried_by_every_request(tmp_path, monkeypatch) -> None:
    database = Database(settings(str(tmp_path), database_deadline=1.2), SecretStr("x"))
    attempts = 0

    async def connect(*_args, **_options):
        nonlocal attempts
        attempts += 1
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    select = [database.run(lambda c: c.scalar(text("select 1"))) for _ in range(40)]
    failed = await asyncio.gather(*select, return_exceptions=True)
    assert [type(each) for each in failed] == [Unavailable] * 40
    # Those that came before it was known fill the pool; after that two a second.
    assert attempts <= settings("x").database_pool + 4
    with pytest.raises(ConnectionError, match=r"a moment ago: connection refused"):
        await database._open()
    await database.close()


async def test_a_server_that_is_back_is_found_by_the_next_attempt(cluster, monkeypatch) -> None:
    database = cluster.database("shop")
    connect, away = psycopg.AsyncConnection.connect, [True, True]

    async def refuse_twice(*args, **options):
        if away:
            away.pop()
            raise psycopg.OperationalError("connection refused")
        return await connect(*args, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refuse_twice)
    assert await database.run(lambda c: c.scalar(text("select 42"))) == 42
    assert away == []
    await database.close()


async def test_whoever_was_right_the_last_time_is_asked_first(cluster, monkeypatch) -> None:
    database = cluster.database("shop")
    connect, asked = psycopg.AsyncConnection.connect, []

    async def note(*args, **options):
        asked.append(options["host"].split(","))
        return await connect(*args, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", note)
    for _ in range(2):
        await database.run(lambda c: c.scalar(text("select 1")))
        await database.engine.dispose()
    primary, standby = str(cluster.primary), str(cluster.standby)
    assert asked == [[standby, primary], [primary, standby]]
    await database.close()


async def test_work_is_done_again_after_its_connection_was_cut(cluster) -> None:
    database = cluster.database("shop")
    tries = 0

    async def work(connection) -> int:
        nonlocal tries
        tries += 1
        pid = await connection.scalar(text("select pg_backend_pid()"))
        if tries == 1:
            cluster.execute(f"select pg_terminate_backend({pid})")
        return await connection.scalar(text("select 42"))

    assert await database.run(work) == 42
    assert tries == 2
    await database.close()


async def test_a_statement_that_takes_too_long_is_not_repeated(cluster) -> None:
    database = cluster.database("shop")
    tries = 0

    async def work(connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(text("set local statement_timeout = 50"))
        await connection.execute(text("select pg_sleep(2)"))

    with pytest.raises(Unavailable):
        await database.run(work)
    assert tries == 1
    await database.close()


@pytest.mark.parametrize(("role", "recovering"), [("read-write", False), ("standby", True)])
async def test_each_role_finds_its_host(cluster, role, recovering: bool) -> None:
    database = cluster.database("shop", role)
    assert await database.run(lambda c: c.scalar(text("select pg_is_in_recovery()"))) is recovering
    await database.close()


RECOVERING = text("select pg_is_in_recovery()")


async def test_what_may_be_a_little_old_is_read_on_a_standby_while_the_primary_is_away(cluster, tmp_path) -> None:
    primary, standby = cluster.database("shop"), cluster.database("shop", "standby")
    away = Database(settings(str(tmp_path)), SecretStr("x"))
    assert await primary.read(lambda c: c.scalar(RECOVERING), standby) is False
    assert await away.read(lambda c: c.scalar(RECOVERING), standby) is True
    assert await primary.read(lambda c: c.scalar(RECOVERING), away) is False
    for database in (primary, standby, away):
        await database.close()


async def test_a_read_goes_on_trying_the_primary_when_there_is_no_standby_either(cluster, tmp_path) -> None:
    primary = cluster.database("shop")
    away = Database(settings(str(tmp_path)), SecretStr("x"))
    tries = 0

    async def work(connection) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("it restarts")
        return await connection.scalar(RECOVERING)

    assert await primary.read(work, away) is False
    assert tries == 2
    for database in (primary, away):
        await database.close()


async def test_a_read_that_nobody_answers_costs_no_more_than_the_deadline(tmp_path) -> None:
    away = Database(settings(str(tmp_path), database_deadline=0.7), SecretStr("x"))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await away.read(lambda c: c.scalar(RECOVERING), away)
    assert time.monotonic() - began < 2
    await away.close()
