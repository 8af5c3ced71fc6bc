"""Positions, files and timelines of the WAL; what is shipped, kept and missed; what a base backup says of itself."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.base.errors import OpsError
from ops.recovery import catalogue
from ops.recovery.catalogue import Catalogue
from ops.recovery.postgres import base, fingerprint, receive, ship, state, stream, wal
from ops.recovery.postgres.fingerprint import Fingerprint, Table
from ops.recovery.postgres.state import Gap, Shipped, State
from ops.recovery.repository import Missing, Repository, Snapshot, Unreachable
from ops.recovery.settings import Keep, Paths, Settings, Target
from ops.tests.recovery.test_recovery_catalogue import NOON, entry

HISTORY = "1\t0/5000060\tno recovery target specified\n"


def names(timeline: int, *numbers: int) -> list[str]:
    return [wal.Segment(number, timeline).name for number in numbers]


def test_a_segment_and_its_name() -> None:
    assert wal.segment_of("000000020000000100000003.partial") == wal.Segment(259, 2)
    assert wal.Segment(259, 2).name == "000000020000000100000003"
    assert wal.segment_of("00000002.history") is None and wal.segment_of("state.json") is None
    assert wal.timeline_of_history("0000001F.history") == 31 and wal.timeline_of_history("x") == 0


def test_a_position_is_read_and_shown() -> None:
    assert wal.shown(wal.position("1A/B374D848")) == "1A/B374D848"
    assert wal.number_of(wal.position("1/3000028")) == 259


def test_nothing_is_missing_up_to_what_is_still_written() -> None:
    found = [*names(1, 3, 4), f"{wal.Segment(5, 1).name}.partial"]
    assert wal.missing(found, wal.position("0/3000028"), 1, {}) == ("", 5)


def test_a_hole_is_named_with_how_far_a_recovery_gets() -> None:
    assert wal.missing(names(1, 3, 4, 6), wal.position("0/3000028"), 1, {}) == (wal.Segment(5, 1).name, 4)
    assert wal.missing([], wal.position("0/3000028"), 1, {}) == (wal.Segment(3, 1).name, 2)


def test_a_recovery_goes_on_along_the_timeline_of_a_failover() -> None:
    found = [*names(1, 3, 4), *names(2, 5, 6)]
    assert wal.missing(found, wal.position("0/3000028"), 1, {2: HISTORY}) == ("", 6)
    without = [*names(1, 3), *names(2, 5, 6)]
    assert wal.missing(without, wal.position("0/3000028"), 1, {2: HISTORY})[0] == wal.Segment(4, 1).name


def test_files_of_an_unrelated_timeline_do_not_fill_a_hole() -> None:
    found = [*names(1, 3), *names(7, 4), *names(1, 5)]
    assert wal.missing(found, wal.position("0/3000028"), 1, {})[0] == wal.Segment(4, 1).name


def test_what_an_old_primary_wrote_alone_is_put_aside() -> None:
    found = [*names(1, 4, 5, 6), *names(2, 5), "00000002.history"]
    assert wal.diverged(found, wal.branches(HISTORY)) == names(1, 5, 6)


def test_a_timeline_that_ended_with_a_segment_is_continued_before_it() -> None:
    """pg_receivewal cannot begin at the very end of a timeline: a quiet site fails over right after a backup."""
    ended = wal.branches("1\t0/5000000\tno recovery target specified\n")
    assert wal.diverged(names(1, 3, 4), ended) == names(1, 4)
    said = 'error: could not send replication command "START_REPLICATION":; pg_receivewal: error: disconnected'
    assert receive._DIVERGED.search(said)
    assert not receive._DIVERGED.search('could not send replication command "START_REPLICATION": ERROR:  slot')


def snapshot(id: str, volume: str, position: int) -> Snapshot:
    tags = frozenset({f"volume={volume}", f"position={position}"})
    return Snapshot(id, datetime(2026, 11, 26, tzinfo=UTC), tags)


def test_the_newest_snapshot_of_wal_stays_and_what_a_lost_volume_had_while_it_is_needed() -> None:
    found = [
        snapshot("a", "lost", 100),
        snapshot("b", "lost", 200),
        snapshot("c", "mine", 300),
        snapshot("d", "mine", 4),
    ]
    assert [each.id for each in ship.superseded(found, "mine", needed=150)] == ["a", "c"]
    assert [each.id for each in ship.superseded(found, "mine", needed=250)] == ["a", "b", "c"]
    assert [each.id for each in ship.superseded(found, "mine", needed=0)] == ["a", "c"], "unknown: all is kept"


def test_wal_is_removed_up_to_what_the_oldest_entry_needs(tmp_path: Path) -> None:
    for name in (*names(1, 3, 4, 5), "00000001.history", f"{wal.Segment(2, 1).name}.partial"):
        (tmp_path / name).touch()
    gone = {each.name for each in ship.unneeded([tmp_path], wal.position("0/4000028"))}
    assert gone == {*names(1, 3), f"{wal.Segment(2, 1).name}.partial"}


def test_without_an_entry_the_oldest_wal_goes_beyond_the_limit(tmp_path: Path) -> None:
    stream, kept = tmp_path / "stream", tmp_path / "kept"
    for folder, found in ((kept, names(1, 3, 4)), (stream, [*names(2, 5, 6), f"{names(2, 7)[0]}.partial"])):
        folder.mkdir()
        for name in found:
            (folder / name).write_bytes(bytes(100))
    (stream / "00000002.history").write_bytes(bytes(1000))
    assert list(ship.beyond([stream, kept], 400)) == []
    assert [each.name for each in ship.beyond([stream, kept], 250)] == names(1, 3, 4)
    assert [each.name for each in ship.beyond([stream, kept], 0)] == [*names(1, 3, 4), *names(2, 5, 6)]


class Repositories:
    """Stands for the repositories of a target: what is in its catalogue, or what reading that raises."""

    def __init__(self, found: Catalogue | Exception) -> None:
        self.found = found

    def read(self, _: object) -> Catalogue:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (Missing("/backups", "There is none."), 4),
        (Catalogue(), 4),
        (Catalogue(broken=("an entry",)), 7),
        (Catalogue((entry(NOON),)), 2),
        (Unreachable("/backups", "It is away."), 7),
    ],
)
def test_local_wal_is_bounded_before_the_first_entry_and_kept_for_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Catalogue | Exception, left: int
) -> None:
    settings = Settings(
        "prod", "acme", (Target("/backups"),), 30, 7, Keep(7, 4, 6), paths=Paths(wal=tmp_path), wal_limit_mib=64
    )
    receiver = receive.Receiver(settings)
    for number in range(7):
        with (state.stream(settings.paths) / wal.Segment(number, 1).name).open("wb") as file:
            file.truncate(wal.SEGMENT_BYTES)
    monkeypatch.setattr(catalogue, "read", Repositories(found).read)
    monkeypatch.setattr(Repository, "snapshots", lambda *_: [])
    monkeypatch.setattr(ship, "_TIDY_SECONDS", -1)
    monkeypatch.setattr(ship, "oldest_needed", lambda entries: 5 * wal.SEGMENT_BYTES if entries else 0)
    ship.Shipper(settings, settings.targets[0], receiver)._tidy()
    assert len(list(state.stream(settings.paths).iterdir())) == left


def test_what_the_receiver_knows_survives_it(tmp_path: Path) -> None:
    paths = Paths(wal=tmp_path)
    assert state.read(paths) == State()
    known = State(7, 1.5, 2, {"/backups": Shipped(6, 1.0, "full")}, (Gap(1, 2, 3.0, "removed"),), "away")
    state.write(paths, known)
    assert state.read(paths) == known


MANIFEST = {
    "System-Identifier": 7712589761067094049,
    "WAL-Ranges": [{"Timeline": 2, "Start-LSN": "0/6000028", "End-LSN": "0/6000120"}],
}


def test_what_a_backup_needs_stands_in_its_manifest() -> None:
    assert base.range_of(json.dumps(MANIFEST)) == base.Range(7712589761067094049, 2, 0x6000028, 0x6000120)


@pytest.mark.parametrize("text", ["", "{}", '{"System-Identifier": 1, "WAL-Ranges": []}'])
def test_a_manifest_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(OpsError, match="manifest"):
        base.range_of(text)


def archive(**members: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        folder = tarfile.TarInfo("base")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    return target.getvalue()


def test_the_manifest_is_read_from_the_archive_in_passing() -> None:
    whole = archive(PG_VERSION=b"18\n", backup_manifest=b"x" * 1000, after=b"y" * 3000)
    sink, manifest = io.BytesIO(), io.BytesIO()
    assert stream.copy(io.BytesIO(whole), sink, manifest)
    assert sink.getvalue() == whole and manifest.getvalue() == b"x" * 1000
    assert not stream.copy(io.BytesIO(archive(PG_VERSION=b"18\n")), io.BytesIO(), io.BytesIO())


@pytest.mark.parametrize("cut", [700, 512 + 512 + 100])
def test_an_archive_that_ends_early_is_noticed(cut: int) -> None:
    with pytest.raises(EOFError):
        stream.copy(io.BytesIO(archive(PG_VERSION=b"18\n" * 100, after=b"y" * 3000)[:cut]), io.BytesIO(), io.BytesIO())


def test_differences_of_tables_are_told_by_name() -> None:
    noted = Fingerprint("0/1", {"app": {"a.t": Table(3, "9"), "a.u": Table(1, "5"), "a.v": Table(2, "2")}, "gone": {}})
    found = {"app": {"a.t": Table(2, "4"), "a.u": Table(1, "6"), "a.w": Table(0, "0")}}
    assert list(fingerprint.differences(noted, found)) == [
        "app: table a.t has 2 rows, 3 were noted",
        "app: table a.u has other content than was noted (1 rows)",
        "app: table a.v is missing",
        "app: table a.w is there, and was not",
        "database gone is missing",
    ]
    assert fingerprint.decode(noted.as_json()) == noted
    assert list(fingerprint.differences(noted, noted.databases)) == []
