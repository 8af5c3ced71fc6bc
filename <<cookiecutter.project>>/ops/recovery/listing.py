"""What there is at every target, for people (`invoke backup --list`) and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.recovery import catalogue
from ops.recovery.catalogue import Catalogue, Entry
from ops.recovery.metrics import Metric
from ops.recovery.postgres import state
from ops.recovery.repository import Missing, Repository
from ops.recovery.settings import Settings, Target

# Between two looks of the metrics, unless this machine changes something. Records are read once, so a look costs one
# listing of each target.
LOOK_SECONDS = 120.0
_NOTICE_SECONDS = 1.0
# Whoever waits for a listing shall not wait for a target that does not answer.
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """A target as it was found. error: why it could not be asked, then the rest is empty; wal_until: everything that
    was written before is there, None where no WAL is."""

    location: str
    found: Catalogue = Catalogue()
    wal_until: datetime | None = None
    error: str = ""
    remedy: str = ""


def look(settings: Settings, target: Target) -> Place:
    """What there is at a target."""
    try:
        return Place(target.location, _entries(settings, target), _wal_until(settings, target))
    except OpsError as error:
        return Place(target.location, error=error.message, remedy=error.remedy)


def _entries(settings: Settings, target: Target) -> Catalogue:
    """The entries at a target. The first backup makes the repository: before that there are none."""
    repository = Repository(settings, target, "backups", patience=_PATIENCE_SECONDS, lock_seconds=0)
    try:
        return catalogue.read(repository)
    except Missing:
        repository.refuse_lost()
        return Catalogue()


def _wal_until(settings: Settings, target: Target) -> datetime | None:
    """Up to when the WAL at a target reaches. A receiver that runs knows; what it sent last, the target knows."""
    repository = Repository(settings, target, "wal", patience=_PATIENCE_SECONDS, lock_seconds=0)
    snapshots = repository.snapshots() if repository.exists() else []
    known = state.read(settings.paths).shipped.get(target.location)
    moments = [each.time for each in snapshots[-1:]]
    if known and known.until:
        moments.append(catalogue.moment(known.until))
    return max(moments, default=None)


def window(found: Catalogue, wal_until: datetime | None, gaps: Sequence[float]) -> tuple[datetime, datetime] | None:
    """From when until when every moment of PostgreSQL can be recovered; None when there is no such time.

    gaps: when WAL was lost, in seconds since the epoch. Entries from before that are good for their own moment only.
    """
    broken = catalogue.moment(max(gaps, default=0.0))
    usable = [
        each
        for each in found.entries
        if catalogue.POSTGRES in each.parts and each.id not in found.failed and each.began >= broken
    ]
    if not usable or not wal_until or wal_until <= usable[0].ended:
        return None
    return usable[0].ended, wal_until


def report(settings: Settings) -> dict[str, Any]:
    """The document of `list --json`: every target with its entries, newest first. Keys are only ever added."""
    gaps = [each.at for each in state.read(settings.paths).gaps]
    return {"targets": [_as_json(look(settings, each), gaps) for each in settings.targets]}


def _as_json(place: Place, gaps: Sequence[float]) -> dict[str, Any]:
    reach = window(place.found, place.wal_until, gaps)
    return {
        "target": place.location,
        "error": place.error,
        "remedy": place.remedy,
        "window": {"from": reach[0].isoformat(), "until": reach[1].isoformat()} if reach else None,
        "wal_until": place.wal_until.isoformat() if place.wal_until else None,
        "entries": [_entry(each, place.found) for each in reversed(place.found.entries)],
        "damaged": list(place.found.broken),
    }


def _entry(entry: Entry, found: Catalogue) -> dict[str, Any]:
    last = found.verified(entry.id)
    return {
        "id": entry.id,
        "environment": entry.environment,
        "project": entry.project,
        "began": entry.began.isoformat(),
        "ended": entry.ended.isoformat(),
        "kind": entry.kind,
        "previous": entry.previous,
        "size": entry.size,
        "added": entry.added,
        "parts": sorted(entry.parts),
        "left_out": list(entry.left_out),
        "verification": None
        if last is None
        else {
            "at": datetime.fromtimestamp(last.began, UTC).isoformat(),
            "seconds": last.seconds,
            "good": last.good,
            "problems": list(last.problems),
            "count": last.count,
        },
    }


def tried(settings: Settings, places: Iterable[Place]) -> float:
    """When somebody last restored on another machine, and so had the key, in seconds since the epoch; 0 for never."""
    here = catalogue.machine(settings)
    moments = [at for each in places for name, at in each.found.restored.items() if name != here]
    return max((each.timestamp() for each in moments), default=0.0)


class Watch:
    """Looks at every target now and then, for Prometheus."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places: tuple[Place, ...] = ()
        # What was there when a target answered last: one that is away has not lost its entries.
        self._known: dict[str, Place] = {}

    def run(self) -> None:
        """Look for ever, in a thread that ends with its program."""
        while True:
            seen = catalogue.changed(self._settings)
            self.look()
            until(lambda: catalogue.changed(self._settings) != seen, LOOK_SECONDS, _NOTICE_SECONDS)  # noqa: B023

    def look(self) -> None:
        """Look once."""
        places = tuple(look(self._settings, each) for each in self._settings.targets)
        self._known |= {each.location: each for each in places if not each.error}
        self._places = places

    def metrics(self) -> Iterator[Metric]:
        """What Prometheus reads of it; nothing before the first look."""
        yield from metrics(self._places, self._known)
        yield Metric(
            "backup_key_tried_timestamp_seconds",
            "When a backup was last restored on another machine; 0 for never.",
            samples=(({}, tried(self._settings, self._known.values())),),
        )


def metrics(places: Sequence[Place], known: Mapping[str, Place]) -> Iterator[Metric]:
    """Metrics of targets. known: what was there when each answered last."""
    if not places:
        return
    there = [known[each.location] for each in places if each.location in known]

    def of(values: Mapping[str, float]) -> tuple[tuple[Mapping[str, str], float], ...]:
        return tuple(({"target": location}, value) for location, value in values.items())

    yield Metric(
        "backup_target_up",
        "1 when the target could be asked.",
        samples=of({p.location: float(not p.error) for p in places}),
    )
    yield Metric(
        "backup_entries",
        "Complete backups at the target.",
        samples=of({p.location: len(p.found.entries) for p in there}),
    )
    yield Metric(
        "backup_last_timestamp_seconds",
        "When the newest backup at the target was complete; 0 where there is none.",
        samples=of({p.location: _ended(p.found.entries) for p in there}),
    )
    yield Metric(
        "backup_verified_timestamp_seconds",
        "When the newest backup that was restored and found right was complete.",
        samples=of({p.location: _ended(p.found.proven) for p in there if p.found.proven}),
    )
    yield Metric(
        "backup_failed_verifications",
        "Backups that were not what had been saved when they were restored.",
        samples=of({p.location: len(p.found.failed) for p in there}),
    )
    yield Metric(
        "backup_damages",
        "What cannot be read at the target.",
        samples=of({p.location: len(p.found.broken) for p in there}),
    )
    yield Metric(
        "backup_last_bytes",
        "What is in the newest backup, before compression.",
        samples=of({p.location: p.found.entries[-1].size for p in there if p.found.entries}),
    )


def _ended(entries: Sequence[Entry]) -> float:
    return entries[-1].ended.timestamp() if entries else 0.0
