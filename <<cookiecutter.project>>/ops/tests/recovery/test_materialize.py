"""Which entry and which moment are recovered, and what is refused before anything is."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from ops.base.errors import REFUSED, USAGE, OpsError
from ops.recovery import archive, folders, materialize, rabbitmq, serve, settings
from ops.recovery.catalogue import Catalogue, Entry, Part, Verification
from ops.recovery.materialize import NEWEST, Wanted
from ops.recovery.postgres import recover, server
from ops.recovery.repository import Unreachable
from ops.recovery.settings import Keep, Settings, Target

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TARGETS = (Target("/backups"), Target("s3:https://a/one"), Target("s3:https://a/two"))
SETTINGS = Settings("dev", "acme-dev", TARGETS, 30, 7, Keep(7, 4, 6), database="appdb")
DETAILS = {
    "system": "7",
    "timeline": 1,
    "start": "0/3000028",
    "end": "0/3000120",
    "version": 180006,
    "fingerprint": {
        "position": "0/3000FFF",
        "databases": {"appdb": {"public.t": [3, "1"]}, "shop": {}, "postgres": {}, "Odd Name": {}},
    },
}
FILES = {
    "root": "/scratch/take",
    "redis.rdb": {"keys": 2, "node": "redis-primary", "version": "8.2.9"},
    "rabbitmq.json": {"queues": 5, "exchanges": 2, "version": "4.3.6"},
    "volumes": {"files": {"files": 1, "bytes": 10}},
}


def entry(hour: int, **details: object) -> Entry:
    began = NOON + timedelta(hours=hour)
    parts = {
        "postgres": Part("postgres", "a", "full", size=1000, details={**DETAILS, **details}),
        "files": Part("files", "b", size=24, details=FILES),
    }
    name = f"{began:%Y%m%dT%H%M%SZ}"
    return Entry(name, began, began + timedelta(minutes=5), parts, ("messages",), "dev", "acme-dev")


@pytest.fixture
def catalogued(monkeypatch):
    """What is at the target: an entry at noon and one an hour later."""
    found = {"verifications": (), "entries": (entry(0), entry(1))}
    monkeypatch.setattr(materialize, "_here", lambda: "18.6")
    monkeypatch.setattr(
        materialize.catalogue, "read", lambda _repository: Catalogue(found["entries"], found["verifications"])
    )
    return found


@pytest.mark.parametrize(
    ("wanted", "hour"),
    [
        (Wanted(), 13),
        (Wanted("20261122T12"), 12),
        (Wanted(until=NEWEST), 13),
        (Wanted(until=NOON + timedelta(minutes=30)), 12),
        (Wanted(until=NOON + timedelta(minutes=64)), 12),
        (Wanted(until=NOON + timedelta(minutes=65)), 13),
        (Wanted("20261122T12", NOON + timedelta(days=1)), 12),
    ],
)
def test_the_entry_that_a_moment_begins_with(catalogued, wanted, hour) -> None:
    assert materialize.choose(SETTINGS, wanted).entry.began.hour == hour


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(until=NOON), "No entry is from before 2026-11-22 12:00:00"),
        (Wanted("20261122T13", NOON + timedelta(minutes=30)), "is before the end of 20261122T130000Z"),
        (Wanted("1999"), "There is no entry"),
        (Wanted(target="sftp:"), "There is no target sftp:"),
        (Wanted(target="s3:"), "2 targets have s3:"),
    ],
)
def test_what_is_not_there_is_refused(catalogued, wanted, words) -> None:
    with pytest.raises(OpsError, match=words) as caught:
        materialize.choose(SETTINGS, wanted)
    assert caught.value.code == USAGE


def test_an_entry_that_failed_its_proof_is_refused(catalogued) -> None:
    catalogued["verifications"] = (Verification("20261122T130000Z", 1.0, 1.0, False, ("a table is missing",), 1),)
    with pytest.raises(OpsError, match="its verification found a table is missing") as caught:
        materialize.choose(SETTINGS, Wanted())
    assert caught.value.code == REFUSED
    assert materialize.choose(SETTINGS, Wanted("20261122T12"))


def test_how_far_is_recovered(catalogued) -> None:
    def until(wanted: Wanted) -> recover.Until:
        return materialize.until(materialize.choose(SETTINGS, wanted))

    moment = NOON + timedelta(hours=3)
    assert until(Wanted()) == recover.Until(position="0/3000FFF"), "where its rows were counted"
    assert until(Wanted(until=moment)) == recover.Until(moment=moment)
    assert until(Wanted(until=NEWEST)) == recover.LATEST


def test_what_would_come_back(catalogued) -> None:
    plan = materialize.plan(SETTINGS, Wanted())
    assert plan.members == {
        "postgres.dump": {"database": "appdb", "database_bytes": 1024, "rows": {"public.t": 3}},
        "databases/shop.dump": {"database": "shop", "database_bytes": 0, "rows": {}},
        "redis.rdb": {"expiring": 0, **FILES["redis.rdb"]},
        "rabbitmq.json": {"expiring": 0, **FILES["rabbitmq.json"]},
        "volumes/files.tar.gz": {"files": 1, "bytes": 10},
    }
    assert plan.versions == {"postgres": "18.6", "redis": "8.2.9", "rabbitmq": "4.3.6"}
    assert plan.left_out == ("messages", "database Odd Name: an archive cannot hold one of that name")
    assert plan.databases_known and plan.moment == plan.entry_moment == "2026-11-22T13:00:00+00:00"


def test_what_would_come_back_of_a_database_outside_of_the_stack(catalogued) -> None:
    def dump(name: str, size: int) -> Part:
        return Part(
            f"dump-{name}",
            name,
            size=size,
            details={"database": name, "version": 170002, "tables": {"public.t": [3, "1"]}, "roles": []},
        )

    made = replace(entry(1), parts={"dump-appdb": dump("appdb", 700), "dump-shop": dump("shop", 50)})
    catalogued["entries"] = (made,)
    plan = materialize.plan(SETTINGS, Wanted())
    assert plan.members == {
        "postgres.dump": {"database": "appdb", "database_bytes": 700, "rows": {"public.t": 3}},
        "databases/shop.dump": {"database": "shop", "database_bytes": 50, "rows": {"public.t": 3}},
    }
    assert plan.versions == {"postgres": "17.2"} and plan.space == 2 * 750
    with pytest.raises(OpsError, match="holds dumps of a PostgreSQL outside of the stack") as caught:
        materialize.plan(SETTINGS, Wanted(until=NEWEST))
    assert caught.value.code == USAGE


def test_the_newest_moment_is_how_far_wal_is_known_to_reach(catalogued, monkeypatch) -> None:
    shipped, received = NOON + timedelta(hours=2), NOON + timedelta(hours=3)
    snapshots = [SimpleNamespace(time=shipped)]
    monkeypatch.setattr(materialize.Repository, "snapshots", lambda _self: snapshots)
    monkeypatch.setattr(materialize.state, "read", lambda _paths: SimpleNamespace(until=received.timestamp()))
    assert materialize.plan(SETTINGS, Wanted(until=NEWEST)).moment == received.isoformat()
    monkeypatch.setattr(materialize.state, "read", lambda _paths: SimpleNamespace(until=0.0))
    assert materialize.plan(SETTINGS, Wanted(until=NEWEST)).moment == shipped.isoformat()
    snapshots.clear()
    assert materialize.plan(SETTINGS, Wanted(until=NEWEST)).moment == entry(1).ended.isoformat()


def test_another_major_version_is_refused_with_the_way(catalogued, monkeypatch) -> None:
    monkeypatch.setattr(materialize, "_here", lambda: "19.1")
    with pytest.raises(OpsError, match="files of PostgreSQL 18.6; PostgreSQL 19.1 runs here") as caught:
        materialize.plan(SETTINGS, Wanted())
    assert caught.value.code == REFUSED
    assert "version 18" in caught.value.remedy and "--portable" in caught.value.remedy


def test_a_short_disk_is_refused(tmp_path: Path) -> None:
    materialize.refuse_short_disk(tmp_path, 1)
    with pytest.raises(OpsError, match="the restore may need 8.0 EiB|the restore may need 8192") as caught:
        materialize.refuse_short_disk(tmp_path, 8 << 50)
    assert caught.value.code == REFUSED


def test_what_a_killed_one_left_is_removed_first(tmp_path: Path) -> None:
    configured = Settings(
        "dev", "acme-dev", SETTINGS.targets, 30, 7, Keep(7, 4, 6), paths=settings.Paths(scratch=tmp_path)
    )
    left = tmp_path / "restore/recovered/data"
    left.mkdir(parents=True, mode=0o500)
    with folders.temporary(configured, "restore") as folder:
        assert [*folder.iterdir()] == []
    assert [*tmp_path.iterdir()] == []


def test_a_backup_of_somebody_else_gives_no_secrets() -> None:
    materialize.refuse_stranger(SETTINGS, entry(0))
    stranger = Entry("1", NOON, NOON, {}, (), "prod", "acme-prod")
    with pytest.raises(OpsError, match=r"a backup of acme-prod \(prod\), not of acme-dev"):
        materialize.refuse_stranger(SETTINGS, stranger)


# ── the archive ───────────────────────────────────────────────────────────────────────────────────────────────────────

DEFINITIONS = json.dumps({"rabbitmq_version": "4.3.6", **{key: [{"name": "x"}] for key in rabbitmq.KEPT}})
# A database with two keys, of which none expires, and the end.
SNAPSHOT = b"REDIS0012\xfe\x00\xfb\x02\x00\xff"


class Shelf:
    """A repository with what the entries say; noted: the texts that were saved there."""

    def __init__(self, configured: Settings, target: Target, kind: str) -> None:
        self.settings, self.target, self.kind = configured, target, kind
        self.noted: list[list[str]] = []
        shelves.append(self)

    def text(self, id: str, path: str) -> str:
        assert (id, path) == ("b", "/scratch/take/rabbitmq.json")
        return DEFINITIONS

    def dump(self, id: str, path: str, sink: IO[bytes]) -> None:
        if path == "/scratch/take/redis.rdb":
            sink.write(SNAPSHOT)
            return
        assert (id, path) == ("b:/volumes/files", "/")
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            info = tarfile.TarInfo("cat.jpg")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"a cat"))

    def restore(self, id: str, into: Path, include: list[str], folder: str) -> None:
        assert (id, include, folder) == ("b", ["configuration", "secrets"], "/scratch/take")
        (into / "configuration").mkdir()
        (into / "configuration" / ".env").write_text("A=1")

    def save_text(self, _name: str, _text: str, tags: list[str]) -> None:
        self.noted.append(tags)


shelves: list[Shelf] = []


@pytest.fixture
def here(catalogued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The part, with those entries at a target that can be read."""
    monkeypatch.setattr(materialize, "Repository", Shelf)
    shelves.clear()
    return replace(SETTINGS, paths=settings.Paths(scratch=tmp_path / "scratch", cache=tmp_path / "cache"))


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put programs on PATH."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def archived(here: Settings, folder: Path, *members: str) -> tuple[archive.Manifest, Callable[[str], bytes]]:
    """The archive that is written: its manifest, and what gives a member's content."""
    sink = io.BytesIO()
    materialize.materialize(here, Wanted(), members, sink)
    path = folder / "made.tar"
    path.write_bytes(sink.getvalue())

    def content(name: str) -> bytes:
        with archive.member(path, name) as file:
            return file.read()

    return archive.verify(path), content


def test_files_of_an_entry_become_an_archive_that_can_be_verified(here: Settings, tmp_path: Path) -> None:
    manifest, content = archived(here, tmp_path, "redis.rdb", "rabbitmq.json", "volumes/files.tar.gz")
    assert set(manifest.members) == {"redis.rdb", "rabbitmq.json", "volumes/files.tar.gz"}
    assert (manifest.facts.project, manifest.facts.environment) == ("acme", "dev")
    assert manifest.facts.created_at == NOON + timedelta(hours=1)
    assert content("redis.rdb") == SNAPSHOT and manifest.counts("redis.rdb") == {"keys": 2, "expiring": 0}
    assert content("rabbitmq.json").decode() == DEFINITIONS
    assert manifest.counts("rabbitmq.json") == dict.fromkeys(rabbitmq.KEPT, 1)
    with tarfile.open(fileobj=io.BytesIO(content("volumes/files.tar.gz")), mode="r:gz") as tar:
        assert tar.getnames() == ["cat.jpg"]
    assert manifest.counts("volumes/files.tar.gz") == {"files": 1, "bytes": 5}
    assert not (here.paths.scratch / "restore").exists()


def test_a_restore_is_noted_at_the_target(here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archived(here, tmp_path, "redis.rdb")
    (noted,) = [each.noted for each in shelves if each.noted]
    assert noted[0][0] == "restored=20261122T130000Z"

    def read_only(*_args: object) -> None:
        raise Unreachable("/backups", "/backups is mounted read-only.")

    monkeypatch.setattr(Shelf, "save_text", read_only)
    archived(here, tmp_path, "redis.rdb")


def test_nothing_is_begun_on_a_short_disk(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def little(folder: Path) -> Any:
        asked.append(folder)
        return SimpleNamespace(free=2000)

    monkeypatch.setattr(materialize.shutil, "disk_usage", little)
    monkeypatch.setattr(Shelf, "dump", lambda *_args: pytest.fail("it has begun"))
    sink = io.BytesIO()
    with pytest.raises(OpsError, match="the restore may need 2.0 KiB") as caught:
        materialize.materialize(here, Wanted(), (), sink)
    assert caught.value.code == REFUSED and not sink.getvalue()
    assert asked == [here.paths.scratch / "restore"], "on the disk of the scratch volume"
    with pytest.raises(OpsError, match="the restore may need 2.0 KiB"):
        materialize.recover_into(here, Wanted(), here.paths.scratch)


@pytest.fixture
def recovered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In place of a recovered server one with the databases appdb and shop; how it was recovered."""
    made: list[Any] = []

    @contextmanager
    def recover_it(*arguments: Any) -> Iterator[Any]:
        made.append(arguments)
        folder = arguments[3]
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "PG_VERSION").write_text("18")
        answers = {"SELECT pg_database_size(current_database())": "4096"}
        yield SimpleNamespace(
            data=folder / "data",
            databases=lambda: ["appdb", "postgres", "shop"],
            conninfo=lambda database: f"dbname={database}",
            sql=lambda text, _database: answers.get(text, "[]"),
        )

    monkeypatch.setattr(recover, "recovered", recover_it)
    return made


COUNTED = """cat > /dev/null; echo '["public.t", 3]'; echo '["public.u", 0]'"""


@pytest.mark.usefixtures("_in_time")
def test_databases_are_dumped_as_they_were_at_the_moment(
    here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recovered: list[Any]
) -> None:
    # It complains of more than a pipe holds before it writes anything.
    complaint = "pg_dump: warning: there are circular foreign-key constraints on this table"
    dump = f"""for number in $(seq 2000); do echo '{complaint}' >&2; done; echo "PGDMP $*" """
    programs(tmp_path / "bin", monkeypatch, pg_dump=dump, psql=COUNTED)
    manifest, content = archived(here, tmp_path, "postgres.dump", "databases/shop.dump", "databases/gone.dump")
    assert set(manifest.members) == {"postgres.dump", "databases/shop.dump"}, "one was made later"
    assert content("postgres.dump").startswith(b"PGDMP") and b"--dbname=dbname=appdb" in content("postgres.dump")
    assert b"--dbname=dbname=shop" in content("databases/shop.dump")
    counts = manifest.counts("databases/shop.dump")
    assert (counts["database"], counts["database_bytes"]) == ("shop", 4096)
    assert counts["rows"] == {"public.t": 3, "public.u": 0}
    assert recovered[0][4] == recover.Until(position="0/3000FFF")


@pytest.mark.parametrize(
    ("dump", "psql", "words"),
    [
        ("echo 'pg_dump: error: invalid page' >&2; exit 1", COUNTED, "appdb cannot be read: pg_dump: error: invalid p"),
        ("echo PGDMP", "echo 'psql: error: timeout' >&2; exit 2", "appdb cannot be counted: psql: error: timeout"),
    ],
)
def test_a_database_that_cannot_be_read_ends_the_restore_with_its_words(
    here: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recovered: list[Any],
    dump: str,
    psql: str,
    words: str,
) -> None:
    programs(tmp_path / "bin", monkeypatch, pg_dump=dump, psql=psql)
    sink = io.BytesIO()
    with pytest.raises(OpsError, match=words):
        materialize.materialize(here, Wanted(), ("postgres.dump",), sink)
    assert not sink.getvalue() and not (here.paths.scratch / "restore").exists()


def test_a_moment_before_the_wanted_database_is_told(here: Settings, recovered: list[Any]) -> None:
    with pytest.raises(OpsError, match="At that moment there was no databases/gone.dump") as caught:
        materialize.materialize(here, Wanted(), ("databases/gone.dump",), io.BytesIO())
    assert caught.value.code == USAGE


def test_a_recovered_database_is_left_for_a_server_to_use(
    here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recovered: list[Any]
) -> None:
    stopped: list[list[str]] = []
    monkeypatch.setattr(server, "run", lambda argv, _what: stopped.append(argv))
    materialize.recover_into(here, Wanted(), tmp_path)
    (argv,) = stopped
    assert argv[:2] == ["pg_ctl", "stop"] and argv[2].removeprefix("--pgdata=").startswith(str(tmp_path))
    assert (tmp_path / serve.DATA / "PG_VERSION").read_text() == "18"


def test_an_entry_without_a_database_has_none_to_serve(here: Settings, catalogued, tmp_path: Path) -> None:
    made = entry(1)
    catalogued["entries"] = (replace(made, parts={"files": made.parts["files"]}),)
    with pytest.raises(OpsError, match="20261122T130000Z has no PostgreSQL") as caught:
        materialize.recover_into(here, Wanted(), tmp_path)
    assert caught.value.code == USAGE


def test_the_configuration_comes_back_as_a_tar_archive(here: Settings) -> None:
    sink = io.BytesIO()
    materialize.configuration(here, Wanted(), sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        assert tar.getnames() == ["configuration", "configuration/.env"]
    with pytest.raises(OpsError, match="is a backup of acme-dev"):
        materialize.configuration(replace(here, environment="prod", project="acme-prod"), Wanted(), sink)
