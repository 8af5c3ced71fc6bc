"""Dumps of a PostgreSQL outside of the stack: taken from a server of this container, and loaded into another one.

Those with the marker `image` run in the image of infrastructure/backup, which has the programs.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops.base.errors import REFUSED, USAGE, OpsError
from ops.recovery import catalogue, configuration, listing, materialize, verify
from ops.recovery.catalogue import Entry, Part
from ops.recovery.postgres import client, dumps, receive, ship
from ops.recovery.postgres.client import Unanswered
from ops.recovery.repository import Repository
from ops.recovery.settings import Settings, read
from ops.tests.recovery.test_repository import opened, settings_in

SERVICES: Mapping[str, Mapping[str, Any]] = {
    "shop": {"labels": {"ops.schema": "shop"}},
    "ledger": {"labels": {"ops.database": "ledger"}},
    "ledger-migrate": {"labels": {"ops.database": "ledger"}},
    "web": {},
}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ENVIRON = {
    **{"ENVIRONMENT": "prod", "PROJECT": "acme", "BACKUP_TARGETS": "/backups", "BACKUP_WAL_SECONDS": "30"},
    **{"BACKUP_WAL_LIMIT_MIB": "1024", "BACKUP_FULL_DAYS": "7", "BACKUP_KEEP_DAILY": "7", "BACKUP_KEEP_WEEKLY": "0"},
    **{"BACKUP_KEEP_MONTHLY": "0", "BACKUP_UPLOAD_KIB": "0", "DATABASE_HOSTS": "db.example.com"},
    **{"DATABASE_SSLMODE": "verify-full", "DATABASE_SSLROOTCERT": "/etc/postgres/my ca.crt"},
}


def test_a_server_outside_is_another_one_than_the_stacks(tmp_path: Path) -> None:
    paths = settings_in(tmp_path).paths
    inside = read({**ENVIRON, "COMPOSE_FILE": "docker-compose.yml:docker-compose.postgres.yml"}, paths)
    assert (inside.database_hosts, inside.managed_hosts) == (("db.example.com:5432",), ())
    assert "ssl" not in client.conninfo(inside)
    outside = read({**ENVIRON, "COMPOSE_FILE": "docker-compose.yml:docker-compose.postgres-managed.yml"}, paths)
    # No WAL is received from it, and no standby of it is looked for.
    assert (outside.database_hosts, outside.managed_hosts) == ((), ("db.example.com:5432",))
    found = client.conninfo(outside)
    assert "host=db.example.com port=5432" in found
    assert "sslmode='verify-full' sslrootcert='/etc/postgres/my ca.crt'" in found


@pytest.mark.parametrize("hosts", [(), ("postgres-primary:5432",)])
def test_alerts_on_wal_have_nothing_to_go_by_where_there_is_none(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    """The age of what was never received would be that of 1970."""
    settings = replace(settings_in(tmp_path, "/backups"), database_hosts=hosts, managed_hosts=("db.example.com:5432",))
    receiver = receive.Receiver(settings)
    shippers = [ship.Shipper(settings, each, receiver) for each in settings.targets]
    names = [each.name for each in receive.page(receiver, shippers, listing.Watch(settings))]
    assert "backup_since_timestamp_seconds" in names
    assert any("_wal_" in each for each in names) == bool(hosts)


def test_the_databases_of_services_are_those_that_labels_declare() -> None:
    assert dumps.declared({"services": SERVICES}, "appdb") == ["appdb", "ledger"]
    assert dumps.declared({"services": {"ledger": SERVICES["ledger"]}}, "appdb") == ["ledger"]
    assert dumps.declared({"services": {"web": {}}}, "appdb") == dumps.declared({}, "appdb") == []


@pytest.mark.parametrize(
    ("said", "told", "remedy"),
    [
        (
            'FATAL:  password authentication failed for user "backup"',
            "does not let the role backup in",
            "GRANT pg_read",
        ),
        ('FATAL:  permission denied for database "appdb"', "does not let the role backup in", "GRANT CONNECT"),
        ("SSL error: certificate verify failed", "certificate verify failed", "invoke health"),
        ("server does not support SSL, but SSL was required", "does not support SSL", "invoke health"),
    ],
)
def test_what_no_time_changes_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str, remedy: str
) -> None:
    def refuse(*_: object) -> str:
        raise Unanswered(said)

    monkeypatch.setattr(client, "ask", refuse)
    monkeypatch.setattr(configuration, "deployed", lambda: {"services": SERVICES})
    settings = replace(settings_in(tmp_path, "/backups"), managed_hosts=("db.example.com:5432",))
    with pytest.raises(OpsError, match=told) as caught:
        list(dumps.take(settings, opened(settings), "an id"))
    assert caught.value.code == REFUSED and remedy in caught.value.remedy


def test_a_server_that_is_newer_than_pg_dump_is_refused_before_anything_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ask", lambda *_: "190001")
    monkeypatch.setattr(configuration, "deployed", lambda: {"services": SERVICES})
    version = SimpleNamespace(stdout="pg_dump (PostgreSQL) 18.6 (Debian 18.6-1)\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: version)
    settings = replace(settings_in(tmp_path, "/backups"), managed_hosts=("db.example.com:5432",))
    with pytest.raises(OpsError, match=r"db.example.com:5432 is PostgreSQL 19, and pg_dump .* is 18") as caught:
        list(dumps.take(settings, opened(settings), "an id"))
    assert "Set POSTGRES_IMAGE in the .env file to PostgreSQL 19" in caught.value.remedy
    dumps._refuse_newer(settings, 170005)
    dumps._refuse_newer(settings, 180099)


def test_before_the_first_release_nobody_knows_the_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "deployed", lambda: {})
    settings = replace(settings_in(tmp_path, "/backups"), managed_hosts=("db.example.com:5432",))
    with pytest.raises(OpsError, match="no release declares one"):
        list(dumps.take(settings, opened(settings), "an id"))


def test_an_entry_of_dumps_has_one_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part("dump-appdb", "s", details={"database": "appdb", "version": 180006, "tables": {"shop.t": [3, "9"]}})
    entry = Entry("20261122T120000Z", NOON, NOON, {part.name: part})
    settings = replace(settings_in(tmp_path, str(tmp_path / "target")), database="appdb")
    monkeypatch.setattr(catalogue, "read", lambda _repository: catalogue.Catalogue((entry,)))
    found = materialize.plan(settings, materialize.Wanted())
    assert found.members == {"postgres.dump": {"database": "appdb", "database_bytes": 0, "rows": {"shop.t": 3}}}
    assert found.versions == {"postgres": "18.6"} and entry.holds_database
    with pytest.raises(OpsError, match="dumps of a PostgreSQL outside") as caught:
        materialize.plan(settings, materialize.Wanted(entry.id, NOON))
    assert caught.value.code == USAGE


# ── with the programs ─────────────────────────────────────────────────────────────────────────────────────────────────

_SERVER = ("listen_addresses=127.0.0.1", "port=54321", "fsync=off", "unix_socket_directories={folder}")


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with a server that asks for passwords, and has two databases of services and one of somebody else."""
    data = tmp_path / "data"
    run = {"check": True, "capture_output": True}
    subprocess.run(["initdb", f"--pgdata={data}", "--username=owner", "--auth-host=scram-sha-256"], **run)  # type: ignore[call-overload]
    options = " ".join(f"-c {each.format(folder=tmp_path)}" for each in _SERVER)
    log = f"--log={tmp_path / 'log'}"
    subprocess.run(["pg_ctl", "start", f"--pgdata={data}", log, f"--options={options}", "--wait"], **run)  # type: ignore[call-overload]

    def sql(text: str, database: str = "postgres") -> None:
        argv = client.psql(f"host={tmp_path} port=54321 user=owner dbname={database}")
        subprocess.run(argv, input=text, text=True, check=True, capture_output=True)

    sql(
        "CREATE ROLE shop LOGIN; CREATE ROLE ledger; CREATE ROLE backup LOGIN PASSWORD 'of it';"
        "GRANT pg_read_all_data TO backup;"
    )
    for name in ("appdb", "ledger", "somebody"):
        sql(f"CREATE DATABASE {name} OWNER {'ledger' if name == 'ledger' else 'owner'};")
    sql(
        "CREATE SCHEMA shop AUTHORIZATION shop; SET ROLE shop; CREATE TABLE shop.items (id int PRIMARY KEY, name text);"
        "INSERT INTO shop.items SELECT n, md5(n::text) FROM generate_series(1, 1000) n;",
        "appdb",
    )
    sql("SET ROLE ledger; CREATE TABLE lines AS SELECT 1 AS n;", "ledger")
    monkeypatch.setattr(configuration, "deployed", lambda: {"services": SERVICES})
    settings = settings_in(tmp_path, str(tmp_path / "target"))
    (settings.paths.secrets / "BACKUP_DB_PASSWORD").write_text("of it\n", encoding="utf-8")
    try:
        # The path of a socket has 107 characters at most, and pytest's folders are deep.
        with tempfile.TemporaryDirectory(prefix="s") as scratch:
            paths = replace(settings.paths, scratch=Path(scratch))
            yield replace(settings, managed_hosts=("127.0.0.1:54321",), database="appdb", paths=paths)
    finally:
        subprocess.run(["pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate"], check=True, capture_output=True)


def taken(settings: Settings, repository: Repository) -> Entry:
    repository.ensure()
    parts = list(dumps.take(settings, repository, "20261122T120000Z"))
    entry = Entry("20261122T120000Z", NOON, NOON, {each.name: each for each in parts}, (), "prod", "acme")
    catalogue.commit(repository, entry)
    return entry


@pytest.mark.image
def test_what_was_dumped_is_proven_and_comes_back(managed: Settings, tmp_path: Path) -> None:
    repository = opened(managed)
    entry = taken(managed, repository)
    assert sorted(entry.parts) == ["dump-appdb", "dump-ledger"]
    (proof,) = verify.verify(managed)
    assert (proof.good, proof.problems) == (True, ())
    with dumps.loaded(repository, entry, tmp_path / "loaded") as running:
        assert running.sql("SELECT count(*) FROM shop.items", "appdb") == "1000"
        owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'items'"
        assert running.sql(owner, "appdb") == "shop"
        assert running.sql("SELECT n FROM lines", "ledger") == "1"
        assert "somebody" not in running.databases()
    assert not (tmp_path / "loaded").exists()
    archive = tmp_path / "archive.tar"
    with archive.open("wb") as sink:
        materialize.materialize(managed, materialize.Wanted(), (), sink)
    assert materialize.archive.verify(archive).counts("postgres.dump")["rows"] == {"shop.items": 1000}


@pytest.mark.image
def test_what_is_not_as_it_was_noted_is_found(managed: Settings) -> None:
    """A control: rows that the dump lacks, and content that is another one."""
    repository = opened(managed)
    entry = taken(managed, repository)
    part = entry.parts["dump-appdb"]
    for noted, told in (([1001, "1"], "1000 rows, 1001 were noted"), ([1000, "1"], "other content")):
        changed = replace(part, details={**part.details, "tables": {"shop.items": noted}})
        wrong = replace(entry, parts={**entry.parts, part.name: changed})
        (found,) = dumps.problems(repository, wrong, managed.paths.scratch / "proof")
        assert told in found


@pytest.mark.image
def test_a_table_that_the_role_may_not_read_fails_the_backup(managed: Settings, tmp_path: Path) -> None:
    argv = client.psql(f"host={tmp_path} port=54321 user=owner dbname=appdb")
    subprocess.run(argv, input="REVOKE pg_read_all_data FROM backup;", text=True, check=True)
    with pytest.raises(OpsError, match="appdb cannot be dumped"):
        taken(managed, opened(managed))
