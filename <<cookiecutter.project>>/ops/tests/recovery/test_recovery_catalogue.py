"""Entries: what is written of them, which is found, how long each is kept."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ops.base.errors import OpsError
from ops.recovery import catalogue
from ops.recovery.catalogue import FULL, INCREMENTAL, POSTGRES, Catalogue, Entry, Part, Verification
from ops.recovery.repository import Listing, Repository, Snapshot
from ops.recovery.settings import Keep, Paths, Settings, Target

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEEP = Keep(7, 4, 6)


def entry(began: datetime, previous: str = "", database: bool = True) -> Entry:
    kind = INCREMENTAL if previous else FULL
    parts = {POSTGRES: Part(POSTGRES, "abc", kind, previous, 10, 5)} if database else {}
    return Entry(catalogue.new_id(began), began, began + timedelta(minutes=5), parts, ("RabbitMQ: messages",))


def run_of(number: int, full_every: int = 7, last: datetime = NOON) -> list[Entry]:
    """An entry a day, the oldest first; every few days a full one."""
    found: list[Entry] = []
    for day in range(number):
        began = last - timedelta(days=number - 1 - day)
        found.append(entry(began, found[-1].id if day % full_every else ""))
    return found


def proof(of: Entry, good: bool) -> Verification:
    return Verification(of.id, of.ended.timestamp() + 60, 1.0, good, () if good else ("a row",), 0 if good else 1)


def kept(found: Catalogue, keep: Keep) -> list[str]:
    gone = catalogue.expired(found, keep)
    return [each.id for each in found.entries if each.id not in gone]


def test_an_entry_is_read_as_it_was_written() -> None:
    written = entry(NOON, "20261121T120000Z")
    read = catalogue.decode(catalogue.encode(written))
    assert read == written and read.kind == INCREMENTAL and read.size == 10 and read.added == 5


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "x"}', "null", '{"format": 1, "id": "x", "parts": []}'])
def test_another_text_is_no_entry(text: str) -> None:
    with pytest.raises(OpsError, match="not that of an entry"):
        catalogue.decode(text)


def test_an_entry_of_a_later_format_is_refused() -> None:
    later = json.loads(catalogue.encode(entry(NOON))) | {"format": 2}
    with pytest.raises(OpsError, match="later release"):
        catalogue.decode(json.dumps(later))


def test_an_entry_is_found_by_its_id_its_beginning_or_as_the_latest() -> None:
    found = run_of(3)
    state = Catalogue(tuple(found))
    assert catalogue.find(state, "latest") == found[-1]
    assert catalogue.find(state, found[0].id) == catalogue.find(state, "20261120") == found[0]
    with pytest.raises(OpsError, match="beginning of 3 entries"):
        catalogue.find(state, "2026")
    for wanted in ("", "x", "20251120"):
        with pytest.raises(OpsError, match="(no|There is no) entry|beginning of"):
            catalogue.find(state, wanted)


def test_a_moment_is_reached_from_the_entry_before_it() -> None:
    found = run_of(3)
    state = Catalogue(tuple(found))
    assert catalogue.before(state, NOON) == found[1]
    assert catalogue.before(state, NOON + timedelta(minutes=5)) == found[2]
    with pytest.raises(OpsError, match="No entry is from before"):
        catalogue.before(state, NOON - timedelta(days=3))


def test_a_target_that_cannot_be_read_is_not_an_empty_one() -> None:
    for look in (lambda each: catalogue.find(each, "latest"), lambda each: catalogue.before(each, NOON)):
        with pytest.raises(OpsError, match="no backup at this target yet"):
            look(Catalogue())
        with pytest.raises(OpsError, match="No backup at this target can be read: 20261122T120000Z: /backups is dam"):
            look(Catalogue(broken=("20261122T120000Z: /backups is damaged.",)))


def test_a_chain_begins_with_a_full_entry() -> None:
    found = run_of(10)
    assert catalogue.chain(found, found[9]) == found[7:10]
    assert catalogue.chain(found, found[7]) == found[7:8]
    with pytest.raises(OpsError, match="builds on"):
        catalogue.chain(found[9:], found[9])


def test_an_incremental_backup_builds_on_the_newest_entry_until_a_full_one_is_due() -> None:
    found = run_of(7)

    def chosen(entries: Sequence[Entry], *proofs: Verification, days: float = 0) -> Entry | None:
        now = NOON + timedelta(days=days)
        return catalogue.usable_predecessor(Catalogue(tuple(entries), proofs), 7, now)

    assert chosen(found) == found[-1]
    assert chosen(found, days=1) is None
    assert chosen([]) is None
    assert chosen([entry(NOON, database=False)]) is None
    assert chosen(found[1:]) is None
    assert chosen(found, proof(found[0], True)) == found[-1]
    assert chosen(found, proof(found[0], False)) is None


def test_days_weeks_and_months_keep_one_entry_each() -> None:
    found = run_of(200, full_every=1)
    days = [each.id[:8] for each in found if each.id in kept(Catalogue(tuple(found)), Keep(3, 2, 2))]
    # The last entry of a week is Sunday's, of a month the one of its last day.
    assert days == ["20261031", "20261115", "20261120", "20261121", "20261122"]


def test_several_entries_of_an_earlier_day_count_once() -> None:
    found = [entry(NOON + timedelta(hours=hour)) for hour in (0, 1, 2, 3, 28)]
    assert kept(Catalogue(tuple(found)), Keep(7, 0, 0)) == [found[-2].id, found[-1].id]


def test_every_entry_of_the_last_day_is_kept() -> None:
    found = [entry(NOON + timedelta(hours=hour)) for hour in (-14, 0, 1, 23, 24)]
    assert kept(Catalogue(tuple(found)), Keep(1, 0, 0)) == [each.id for each in found[1:]]


def test_a_damaged_entry_does_not_displace_a_good_one() -> None:
    found = [entry(NOON - timedelta(hours=hour)) for hour in (60, 33, 32, 1)]
    proofs = (proof(found[1], True), proof(found[2], False))
    assert kept(Catalogue(tuple(found), proofs), Keep(3, 0, 0)) == [found[0].id, found[1].id, found[3].id]


def test_what_is_kept_can_be_restored_whatever_the_policy() -> None:
    dice = random.Random(14)
    for _ in range(300):
        found: list[Entry] = []
        moment = NOON
        for _ in range(dice.randrange(1, 60)):
            moment += timedelta(hours=dice.choice((1, 5, 24, 24, 24, 100)))
            base = dice.choice(found[-3:]).id if found and dice.random() < 0.8 else ""
            found.append(entry(moment, base))
        proofs = tuple(proof(each, dice.random() < 0.7) for each in found if dice.random() < 0.7)
        state = Catalogue(tuple(found), proofs)
        keep = Keep(dice.randrange(1, 10), dice.randrange(0, 6), dice.randrange(0, 8))
        gone = catalogue.expired(state, keep)
        left = [each for each in found if each.id not in gone]
        for each in left:
            catalogue.chain(left, each)
        assert found[-1] in left
        assert not state.proven or state.proven[-1] in left
        assert len({each.began.date() for each in left}) >= min(keep.daily, len({each.began.date() for each in found}))
        # What it removes, it removes at once: a second run finds nothing to do.
        remaining = Catalogue(tuple(left), tuple(each for each in proofs if each.entry not in gone))
        assert catalogue.expired(remaining, keep) == frozenset()
        needed = {link.id for each in left for link in catalogue.chain(left, each)[:-1]}
        recent = found[-1].began - timedelta(hours=24)
        assert all(each in left for each in found if each.began >= recent)
        alone = [each for each in left if each.id not in needed and each.began < recent]
        assert len(alone) <= keep.daily + keep.weekly + keep.monthly + 2


def test_damage_is_repaired_once(tmp_path: Path) -> None:
    paths = Paths(cache=tmp_path)
    settings = Settings("prod", "acme", (Target("/backups"),), 30, 7, KEEP, paths=paths)
    repository = Repository(settings, settings.targets[0], "backups")
    first, second = run_of(2)

    def failed(of: Entry) -> Verification:
        return replace(proof(of, False), problems=("files: /backups is damaged: a pack.",))

    whole = Catalogue((first, second), (proof(first, True),))
    other = Catalogue((first, second), (proof(first, False),))
    damaged = Catalogue((first, second), (failed(first),))
    assert not catalogue.needs_repair(repository, whole)
    assert not catalogue.needs_repair(repository, other), "all of it could be read"
    assert catalogue.needs_repair(repository, damaged)
    catalogue.note_repair(repository, damaged)
    assert not catalogue.needs_repair(repository, damaged)
    assert catalogue.needs_repair(repository, Catalogue((first, second), (failed(first), failed(second))))
    assert catalogue.needs_repair(repository, Catalogue((first,), (failed(first),), broken=("a record",)))
    assert not catalogue.needs_repair(repository, Catalogue((second,))), "what was damaged has expired"
    catalogue.note_repair(repository, Catalogue((first, second), (failed(first), failed(second))))
    assert not catalogue.needs_repair(repository, damaged)


class Shelf:
    """A repository that only remembers: its snapshots, what was copied to another one and what was forgotten."""

    def __init__(self, cache: Path, *snapshots: Snapshot) -> None:
        self.settings = Settings("prod", "acme", (Target("/backups"),), 30, 7, KEEP, paths=Paths(cache=cache))
        self.location = "/backups"
        self.held = list(snapshots)
        self.copied: list[list[str]] = []
        self.forgotten: list[str] = []

    def snapshots(self) -> list[Snapshot]:
        return self.held

    def copy(self, ids: list[str], _other: object) -> None:
        self.copied.append(ids)

    def forget(self, ids: list[str]) -> None:
        self.forgotten += ids


def saved(id: str, *tags: str) -> Snapshot:
    return Snapshot(id, NOON, frozenset(tags), original=id)


def test_copies_are_whole_and_their_records_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, damaged = run_of(2)
    found = Catalogue((good, damaged), (proof(damaged, False),))
    monkeypatch.setattr(catalogue, "read", lambda _: found)
    first = Shelf(
        tmp_path,
        saved("record", f"entry={good.id}", f"part={catalogue.RECORD}"),
        saved("files", f"entry={good.id}", "part=files"),
        saved("there", f"entry={good.id}", "part=postgres"),
        saved("proof", f"verification={good.id}"),
        saved("bad", f"entry={damaged.id}", "part=files"),
        saved("unfinished", "entry=20200101T000000Z", "part=files"),
    )
    other = Shelf(tmp_path, replace(first.held[2], id="copy"))
    before = catalogue.changed(first.settings)
    assert catalogue.copy_missing(first, other) == 3  # type: ignore[arg-type]
    assert first.copied == [["files", "proof"], ["record"]]
    assert before == 0 and catalogue.changed(first.settings) > 0


def test_an_entry_goes_with_its_proofs_and_its_record_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_of(3, full_every=1)
    monkeypatch.setattr(catalogue, "read", lambda _: Catalogue(tuple(found)))
    shelf = Shelf(
        tmp_path,
        saved("old files", f"entry={found[0].id}", "part=files"),
        saved("old proof", f"verification={found[0].id}"),
        saved("old record", f"entry={found[0].id}", f"part={catalogue.RECORD}"),
        saved("kept proof", f"verification={found[2].id}"),
        saved("kept", f"entry={found[2].id}", "part=files"),
    )
    assert catalogue.remove_expired(shelf, Keep(1, 0, 0)) == {found[0].id}  # type: ignore[arg-type]
    assert shelf.forgotten == ["old record", "old files", "old proof"]
    assert catalogue.changed(shelf.settings) > 0


def test_a_machine_keeps_its_name(tmp_path: Path) -> None:
    (here, there) = (Shelf(tmp_path / name).settings for name in ("here", "there"))
    assert catalogue.machine(here) == catalogue.machine(here) != catalogue.machine(there)


def test_a_part_of_which_no_size_is_noted_adds_nothing() -> None:
    bare = replace(entry(NOON), parts={"files": Part("files", "abc"), POSTGRES: Part(POSTGRES, "def", FULL, "", 10, 5)})
    assert (bare.size, bare.added) == (10, 5)


def test_a_machine_has_a_name_also_where_its_cache_is_in_use(tmp_path: Path) -> None:
    assert (tmp_path / "machine").parent.is_dir()
    assert len(catalogue.machine(Shelf(tmp_path).settings)) == 32


def test_a_restore_is_read_as_it_was_noted(tmp_path: Path) -> None:
    """So a report can say when somebody last had the key in their hands, and on which machine."""
    texts: dict[str, str] = {}

    class Noted(Shelf):
        def save_text(self, name: str, text: str, tags: list[str]) -> None:
            texts[name] = text
            self.held.append(saved(f"noted {len(self.held)}", *tags))

        def listing(self) -> Listing:
            return Listing(tuple(self.held))

    shelf = Noted(tmp_path / "cache")
    catalogue.note_restore(shelf, "20261122T120000Z")  # type: ignore[arg-type]
    assert texts == {"restored.txt": "20261122T120000Z\n"}
    assert catalogue.read(shelf).restored == {catalogue.machine(shelf.settings): NOON}  # type: ignore[arg-type]
    assert catalogue.changed(shelf.settings) > 0
