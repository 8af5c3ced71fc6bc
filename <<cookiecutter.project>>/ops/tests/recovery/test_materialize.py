"""Which entry and which moment are recovered, and what is refused before anything is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ops.base.errors import REFUSED, USAGE, OpsError
from ops.recovery import folders, materialize, settings
from ops.recovery.catalogue import Catalogue, Entry, Part, Verification
from ops.recovery.materialize import NEWEST, Wanted
from ops.recovery.postgres import recover
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
    entries = [entry(0), entry(1)]
    found = {"verifications": ()}
    monkeypatch.setattr(materialize, "_here", lambda: "18.6")
    monkeypatch.setattr(
        materialize.catalogue, "read", lambda _repository: Catalogue(tuple(entries), found["verifications"])
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
