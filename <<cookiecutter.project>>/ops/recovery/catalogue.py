"""Entries of the catalogue: what an entry holds, which there are, how long each is kept.

An entry is several snapshots with the tags entry=ID and part=NAME. The last one, part=record, holds entry.json; without
it there is no entry. What came of a verification is a snapshot of its own with the tag verification=ID, and a restore
leaves one with the tag restored=ID.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ops.base.errors import USAGE, OpsError
from ops.recovery.repository import Damaged, Repository, RepositoryError, Snapshot
from ops.recovery.settings import Keep, Settings

POSTGRES, FILES, INVENTORY, RECORD = "postgres", "files", "inventory", "record"
# What the names of parts begin with that hold the dump of a database outside of the stack.
DUMP = "dump-"
FULL, INCREMENTAL = "full", "incremental"
LATEST = "latest"

# In the cache, which all containers of this part share.
_CHANGED = "changed"
_RECORD_FILE = "entry.json"
_VERIFICATION_FILE = "verification.json"
_FORMAT = 1
_ID = "%Y%m%dT%H%M%SZ"
# No entry of this time is removed.
_RECENT = timedelta(hours=24)
# restic starts in half a second; a machine that has never seen a target reads every record.
_READERS = 4


@dataclass(frozen=True)
class Part:
    """A snapshot of an entry. kind: FULL or INCREMENTAL, for a database; previous: id of the entry that an incremental
    one builds on; size: bytes before, added: what it took at the target; details: what whoever made it notes of it."""

    name: str
    snapshot: str
    kind: str = ""
    previous: str = ""
    size: int = 0
    added: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """Everything that was saved at one time. left_out: what is not in it, by name, with the reason."""

    id: str
    began: datetime
    ended: datetime
    parts: Mapping[str, Part]
    left_out: tuple[str, ...] = ()
    environment: str = ""
    project: str = ""

    @property
    def kind(self) -> str:
        """FULL or INCREMENTAL, as its database is; FULL without one."""
        return self.parts[POSTGRES].kind if POSTGRES in self.parts else FULL

    @property
    def previous(self) -> str:
        """Id of the entry without which this one cannot be restored; "" when it stands alone."""
        return self.parts[POSTGRES].previous if POSTGRES in self.parts else ""

    @property
    def dumps(self) -> tuple[Part, ...]:
        """Its dumps of databases outside of the stack, by name."""
        return tuple(part for name, part in sorted(self.parts.items()) if name.startswith(DUMP))

    @property
    def holds_database(self) -> bool:
        """Whether PostgreSQL can be restored from it."""
        return POSTGRES in self.parts or bool(self.dumps)

    @property
    def size(self) -> int:
        """Bytes of everything in it, before compression."""
        return sum(each.size for each in self.parts.values())

    @property
    def added(self) -> int:
        """Bytes that it took at the first target."""
        return sum(each.added for each in self.parts.values())


@dataclass(frozen=True)
class Verification:
    """What came of restoring an entry. began: seconds since the epoch; problems: the first few, of `count`."""

    entry: str
    began: float
    seconds: float
    good: bool
    problems: tuple[str, ...] = ()
    count: int = 0

    @property
    def unreadable(self) -> bool:
        """Whether data could not be read back: the target is damaged. Else it came back, and was not what was noted."""
        return any("is damaged" in each for each in self.problems)


@dataclass(frozen=True)
class Catalogue:
    """What a target has. entries and verifications are in the order of their time; unfinished: snapshots of entries
    that never got their record; broken: complaints about what could not be read; restored: moments of restores, by the
    machine on which they were made."""

    entries: tuple[Entry, ...] = ()
    verifications: tuple[Verification, ...] = ()
    unfinished: tuple[Snapshot, ...] = ()
    broken: tuple[str, ...] = ()
    restored: Mapping[str, datetime] = field(default_factory=dict)

    def verified(self, entry_id: str) -> Verification | None:
        """The last verification of an entry."""
        return next((each for each in reversed(self.verifications) if each.entry == entry_id), None)

    @property
    def failed(self) -> frozenset[str]:
        """Ids of the entries whose last verification found problems."""
        return frozenset(each.id for each in self.entries if (last := self.verified(each.id)) and not last.good)

    @property
    def proven(self) -> tuple[Entry, ...]:
        """The entries whose last verification found nothing."""
        return tuple(each for each in self.entries if (last := self.verified(each.id)) and last.good)


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_id(now: datetime) -> str:
    """The id of an entry that begins now, such as 20261122T050300Z."""
    return now.astimezone(UTC).strftime(_ID)


def moment(seconds: float) -> datetime:
    """A moment from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def tags(entry_id: str, part: str) -> list[str]:
    """The tags of a part's snapshot."""
    return [f"entry={entry_id}", f"part={part}"]


def part(repository: Repository, name: str, snapshot: str, details: Mapping[str, Any]) -> Part:
    """A part whose snapshot was just saved, with its sizes."""
    found = next((each for each in repository.snapshots([f"part={name}"]) if each.id == snapshot), None)
    if not found:
        raise Damaged(
            repository.location, f"{repository.location}: the snapshot {snapshot[:8]} that was saved is gone."
        )
    return Part(name, snapshot, size=found.size, added=found.added, details=details)


def make(settings: Settings, entry_id: str, began: float, parts: Iterable[Part], left_out: Iterable[str]) -> Entry:
    """An entry that is complete now. began: seconds since the epoch."""
    return Entry(
        entry_id,
        moment(began),
        datetime.now(UTC),
        {each.name: each for each in parts},
        tuple(left_out),
        settings.environment,
        settings.project,
    )


def commit(repository: Repository, entry: Entry) -> None:
    """Write the record that makes it an entry."""
    repository.save_text(_RECORD_FILE, encode(entry), tags(entry.id, RECORD))
    _note_change(repository.settings)


def record(repository: Repository, verification: Verification) -> None:
    """Note what came of a verification."""
    text = json.dumps(asdict(verification), indent=2)
    repository.save_text(_VERIFICATION_FILE, text, [f"verification={verification.entry}"])
    _note_change(repository.settings)


def note_restore(repository: Repository, entry_id: str) -> None:
    """Note that an entry was restored on this machine: whoever did had the key."""
    tags = [f"restored={entry_id}", f"machine={machine(repository.settings)}"]
    repository.save_text("restored.txt", f"{entry_id}\n", tags)
    _note_change(repository.settings)


def changed(settings: Settings) -> int:
    """A number that is another one after a container of this machine has changed what is at a target."""
    try:
        return (settings.paths.cache / _CHANGED).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _note_change(settings: Settings) -> None:
    settings.paths.cache.mkdir(parents=True, exist_ok=True)
    (settings.paths.cache / _CHANGED).write_text(uuid.uuid4().hex, encoding="ascii")


def machine(settings: Settings) -> str:
    """A name of this machine that no other one has, made when there is none."""
    path = settings.paths.cache / "machine"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return path.read_text(encoding="ascii")


def encode(entry: Entry) -> str:
    """An entry as the text of entry.json."""
    document = {
        "format": _FORMAT,
        "id": entry.id,
        "environment": entry.environment,
        "project": entry.project,
        "began": entry.began.isoformat(),
        "ended": entry.ended.isoformat(),
        "parts": {name: asdict(each) for name, each in entry.parts.items()},
        "left_out": list(entry.left_out),
    }
    return json.dumps(document, indent=2) + "\n"


def decode(text: str) -> Entry:
    """An entry from the text of entry.json. Raises OpsError when it is not one, or of a later format."""
    try:
        document = json.loads(text)
        if document["format"] > _FORMAT:
            raise OpsError(
                f"The entry {document['id']} was made by a later release of the project.",
                "Use that release to restore it.",
            )
        return Entry(
            document["id"],
            datetime.fromisoformat(document["began"]),
            datetime.fromisoformat(document["ended"]),
            {name: Part(**each) for name, each in document["parts"].items()},
            tuple(document["left_out"]),
            document["environment"],
            document["project"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OpsError(f"entry.json is not that of an entry: {error!r}.") from None


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(repository: Repository) -> Catalogue:
    """Everything at a target. What cannot be read of one entry hides no other one; raises RepositoryError only when the
    target as a whole cannot be asked. A part has the id that its snapshot has at this target."""
    listing = repository.listing()
    parts: dict[str, dict[str, Snapshot]] = {}
    proofs = []
    restored = {}
    for each in listing.snapshots:
        if entry_id := each.tag("entry"):
            parts.setdefault(entry_id, {})[each.tag("part")] = each
        elif each.tag("verification"):
            proofs.append(each)
        elif each.tag("restored"):
            restored[each.tag("machine")] = each.time
    broken = list(listing.unreadable)
    entries = []
    complete = {entry_id: found for entry_id, found in parts.items() if RECORD in found}
    for entry_id, text in _texts(repository, {key: found[RECORD] for key, found in complete.items()}, _RECORD_FILE):
        try:
            entries.append(_placed(decode(_raised(text)), complete[entry_id]))
        except OpsError as error:
            broken.append(f"{entry_id}: {error.message}")
    verifications = []
    for _, text in _texts(repository, {each.id: each for each in proofs}, _VERIFICATION_FILE):
        try:
            verifications.append(_verification(_raised(text)))
        except OpsError as error:
            broken.append(error.message)
    return Catalogue(
        tuple(sorted(entries, key=lambda each: each.id)),
        tuple(sorted(verifications, key=lambda each: each.began)),
        tuple(each for entry_id in parts.keys() - complete.keys() for each in parts[entry_id].values()),
        tuple(broken),
        restored,
    )


def entries(repository: Repository) -> list[Entry]:
    """The entries at a target, the oldest first."""
    return list(read(repository).entries)


def _placed(entry: Entry, snapshots: Mapping[str, Snapshot]) -> Entry:
    """An entry with the ids that its parts have where these snapshots are. Raises OpsError when one is missing."""
    if missing := [name for name in entry.parts if name not in snapshots]:
        raise OpsError(f"its part {missing[0]} is missing.")
    parts = {name: replace(each, snapshot=snapshots[name].id) for name, each in entry.parts.items()}
    return replace(entry, parts=parts)


def _verification(text: str) -> Verification:
    try:
        found = json.loads(text)
        return Verification(**{**found, "problems": tuple(found["problems"])})
    except (ValueError, KeyError, TypeError) as error:
        raise OpsError(f"a verification cannot be read: {error!r}.") from None


def _raised(text: str | OpsError) -> str:
    if isinstance(text, OpsError):
        raise text
    return text


def _texts(
    repository: Repository, snapshots: Mapping[str, Snapshot], name: str
) -> Iterator[tuple[str, str | RepositoryError]]:
    """The text of a file in each snapshot, or what is wrong with it. Read once: a snapshot never changes."""
    cache = repository.settings.paths.cache / "records"
    cache.mkdir(parents=True, exist_ok=True)

    def text(snapshot: Snapshot) -> str | RepositoryError:
        place = cache / snapshot.id
        if place.exists():
            return place.read_text(encoding="utf-8")
        try:
            found = repository.text(snapshot.id, f"/{name}")
        except Damaged as error:
            return error
        written = place.with_suffix(".new")
        written.write_text(found, encoding="utf-8")
        written.replace(place)
        return found

    with ThreadPoolExecutor(_READERS) as pool:
        yield from zip(snapshots, pool.map(text, snapshots.values()), strict=True)


# ── finding ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def find(catalogue: Catalogue, wanted: str) -> Entry:
    """The entry that is meant: LATEST, an id, or the beginning of one. Raises OpsError (USAGE) when there is none."""
    found = catalogue.entries
    if wanted == LATEST and found:
        return found[-1]
    matching = [each for each in found if each.id == wanted] or [each for each in found if each.id.startswith(wanted)]
    if len(matching) == 1 and wanted:
        return matching[0]
    if not found:
        raise no_entry(catalogue)
    known = ", ".join(each.id for each in reversed(found[-5:]))
    what = f'"{wanted}" is the beginning of {len(matching)} entries' if matching else f'There is no entry "{wanted}"'
    raise OpsError(f"{what}.", f"The newest are {known}. See all: invoke backup --list", USAGE)


def before(catalogue: Catalogue, wanted: datetime) -> Entry:
    """The entry to begin at for a moment: the newest one that was complete by then. Raises OpsError (USAGE)."""
    found = catalogue.entries
    if not found:
        raise no_entry(catalogue)
    usable = [each for each in found if each.ended <= wanted]
    if not usable:
        raise OpsError(
            f"No entry is from before {wanted:%Y-%m-%d %H:%M:%S%z}.",
            f"The oldest moment is {found[0].ended:%Y-%m-%d %H:%M:%S%z}.",
            USAGE,
        )
    return usable[-1]


def no_entry(catalogue: Catalogue) -> OpsError:
    """Why no entry can be found where none could be read."""
    if catalogue.broken:
        return OpsError(
            f"No backup at this target can be read: {catalogue.broken[0]}",
            'Use another target (--target), and see docs/recovery.md, "A damaged target".',
        )
    return OpsError("There is no backup at this target yet.", "Take one: invoke backup", USAGE)


def chain(found: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The entries that an entry is restored from, the full one first, itself last. Raises OpsError when one is gone."""
    known = {each.id: each for each in found}
    links = [entry]
    while previous := links[0].previous:
        if previous not in known or known[previous] in links:
            raise OpsError(f"{entry.id} builds on {previous}, which is not at this target.", "Choose another entry.")
        links.insert(0, known[previous])
    return links


def needs_repair(repository: Repository, found: Catalogue) -> bool:
    """Whether something at a target is damaged that no `note_repair` was for."""
    place = _repaired(repository)
    noted = json.loads(place.read_text(encoding="utf-8")) if place.exists() else []
    return not _damage(found) <= set(noted)


def note_repair(repository: Repository, found: Catalogue) -> None:
    """Note that a repair was made for what was damaged."""
    _repaired(repository).parent.mkdir(parents=True, exist_ok=True)
    _repaired(repository).write_text(json.dumps(sorted(_damage(found))), encoding="utf-8")


def _damage(found: Catalogue) -> frozenset[str]:
    unreadable = (each.entry for each in found.verifications if each.entry in found.failed and each.unreadable)
    return frozenset((*unreadable, *found.broken))


def _repaired(repository: Repository) -> Path:
    return repository.settings.paths.cache / "repaired" / repository.place


def usable_predecessor(catalogue: Catalogue, full_days: int, now: datetime) -> Entry | None:
    """The newest entry, when it has a database, nothing is known against its chain, and that began in the last days."""
    last = catalogue.entries[-1] if catalogue.entries else None
    if not last or POSTGRES not in last.parts:
        return None
    try:
        links = chain(catalogue.entries, last)
    except OpsError:
        return None
    # Half an hour: a daily schedule is not exact, and the full one shall come on the day itself.
    due = links[0].began + timedelta(days=full_days) - timedelta(minutes=30)
    return None if now >= due or {each.id for each in links} & catalogue.failed else last


# ── keeping ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def expired(catalogue: Catalogue, keep: Keep) -> frozenset[str]:
    """Ids of the entries that are kept no longer.

    Kept are every entry of the last 24 hours before the newest, the newest of each of the last days, weeks and months
    that have one, the newest that was proven, and every entry that one of these builds on. An older entry known to be
    damaged is kept only where its day has no other.
    """
    rules: tuple[tuple[int, Callable[[datetime], object]], ...] = (
        (keep.daily, lambda began: began.date()),
        (keep.weekly, lambda began: began.isocalendar()[:2]),
        (keep.monthly, lambda began: (began.year, began.month)),
    )
    # A backup before a risky change must not remove the one that was taken before it on the same day.
    recent = catalogue.entries[-1].began - _RECENT if catalogue.entries else None
    kept = {each.id for each in catalogue.entries if recent and each.began >= recent}
    kept |= {each.id for each in catalogue.proven[-1:]}
    for number, period in rules:
        kept |= set(_newest(catalogue.entries, catalogue.failed, number, period))
    known = {each.id: each for each in catalogue.entries}
    for each in list(kept):
        link = known[each].previous
        while link in known and link not in kept:
            kept.add(link)
            link = known[link].previous
    return frozenset(known.keys() - kept)


def _newest(
    found: Sequence[Entry], failed: Collection[str], number: int, period: Callable[[datetime], object]
) -> Iterator[str]:
    """Ids of the best entry of each of the last periods that have one: the newest of those that did not fail."""
    best: dict[object, str] = {}
    for each in sorted(found, key=lambda each: (each.id not in failed, each.id)):
        best[period(each.began)] = each.id
    periods = list(dict.fromkeys(period(each.began) for each in reversed(found)))
    yield from (best[each] for each in periods[:number])


def copy_missing(first: Repository, other: Repository) -> int:
    """Copy the entries and verifications that another target does not have; how many snapshots that were.

    Records come last, so that what is cut off half-way is no entry there.
    """
    known = {each.original for each in other.snapshots()}
    found = read(first)
    # What is damaged cannot be copied, and must not keep the rest from it. A copy from before the damage is whole, so
    # the proof that failed says nothing of it.
    whole = {each.id for each in found.entries} - found.failed
    missing = [
        each
        for each in first.snapshots()
        if each.original not in known and {each.tag("entry"), each.tag("verification")} & whole
    ]
    records = [each for each in missing if each.tag("part") == RECORD]
    for wanted in ([each for each in missing if each not in records], records):
        first.copy([each.id for each in wanted], other)
    _note_change(first.settings)
    return len(missing)


def remove_unfinished(repository: Repository) -> int:
    """Remove what was saved for entries that were never complete; how many snapshots that were.

    Only where nobody takes an entry. Nothing is removed while something cannot be read: it may be a record.
    """
    found = read(repository)
    if found.broken:
        return 0
    repository.forget([each.id for each in found.unfinished])
    return len(found.unfinished)


def remove_expired(repository: Repository, keep: Keep) -> frozenset[str]:
    """Remove the entries that are kept no longer, with their verifications; their ids. Their space is freed by `prune`.

    Nothing is removed while something cannot be read: what it builds on is not known.
    """
    found = read(repository)
    if found.broken:
        raise Damaged(
            repository.location,
            f"Nothing is removed from {repository.location} while it is damaged: {found.broken[0]}",
            'See docs/recovery.md, "A damaged target".',
        )
    gone = expired(found, keep)
    kept = {each.id for each in found.entries} - gone
    snapshots = [
        each
        for each in repository.snapshots()
        if each.tag("entry") in gone or ((proof := each.tag("verification")) and proof not in kept)
    ]
    # Records first: what is left of an entry then is none.
    snapshots.sort(key=lambda each: each.tag("part") != RECORD)
    repository.forget([each.id for each in snapshots])
    _note_change(repository.settings)
    return gone
