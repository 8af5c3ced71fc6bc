"""Brings received WAL to every target, and cleans up what no entry needs any more.

Each target has a thread of its own: one that is out of reach holds up neither the others nor the receiving. A snapshot
holds all WAL of the volume, so the newest one is enough, and those before it go. The volume has an id: what another
volume had, before this one was made, stays at the target as long as an entry needs it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ops.base.errors import OpsError
from ops.recovery import catalogue
from ops.recovery.catalogue import Catalogue
from ops.recovery.log import say
from ops.recovery.metrics import Metric
from ops.recovery.postgres import state, wal
from ops.recovery.postgres.state import Shipped
from ops.recovery.repository import Missing, Repository, RepositoryError, Snapshot
from ops.recovery.settings import Settings, Target

if TYPE_CHECKING:
    from ops.recovery.postgres.receive import Receiver

_TIDY_SECONDS = 600.0
_PRUNE_SECONDS = 86400.0
# A target that answers does so within seconds.
_PATIENCE_SECONDS = 60.0


class Shipper:
    """Brings WAL to one target."""

    def __init__(self, settings: Settings, target: Target, receiver: Receiver) -> None:
        self.target = target
        self.errors = 0
        self._settings = settings
        self._receiver = receiver
        self._repository = Repository(settings, target, "wal", patience=_PATIENCE_SECONDS, lock_seconds=30)
        self._ended = threading.Event()
        self._ready = False
        self._tidied = self._pruned = time.monotonic()

    def run(self) -> None:
        """Ship and tidy up until `stop`, and once more then."""
        while not self._ended.wait(self._settings.wal_seconds):
            self.ship()
            self._tidy()
        self.ship()

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._ended.set()

    def ship(self) -> None:
        """Bring what is new to the target."""
        now, known = self._receiver.state, self._receiver.state.shipped.get(self.target.location, Shipped())
        if now.position == known.position and not known.error:
            # Nothing was written since.
            self._receiver.note_shipped(self.target.location, Shipped(now.position, now.until))
            return
        try:
            if not self._ready:
                self._repository.ensure()
                self._ready = True
            tags = [f"volume={volume_id(self._settings)}", f"position={now.position}"]
            paths = self._settings.paths
            self._repository.save_paths([state.stream(paths), state.kept(paths)], tags)
        except OpsError as error:
            self.errors += 1
            self._ready = False
            if error.message != known.error:
                say("error", "WAL was not shipped", target=self.target.location, reason=error.message)
            self._receiver.note_shipped(self.target.location, Shipped(known.position, known.until, error.message))
            return
        if known.error:
            say("info", "WAL is shipped again", target=self.target.location)
        self._receiver.note_shipped(self.target.location, Shipped(now.position, now.until))

    def _tidy(self) -> None:
        if time.monotonic() < self._tidied + _TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        try:
            found = self._catalogue()
            if found.broken:
                # An entry that cannot be read now may need any of it.
                raise RepositoryError(self.target.location, found.broken[0])
            needed = oldest_needed(found.entries)
            gone = superseded(self._repository.snapshots(), volume_id(self._settings), needed)
            self._repository.forget([each.id for each in gone])
            if time.monotonic() > self._pruned + _PRUNE_SECONDS:
                self._pruned = time.monotonic()
                self._repository.prune()
            if self.target == self._settings.targets[0]:
                folders = (state.stream(self._settings.paths), state.kept(self._settings.paths))
                limit = self._settings.wal_limit_mib << 20
                for each in list(unneeded(folders, needed) if needed else beyond(folders, limit)):
                    each.unlink(missing_ok=True)
        except RepositoryError as error:
            say("warning", "old WAL was not removed", target=self.target.location, reason=error.message)

    def _catalogue(self) -> Catalogue:
        """The entries at the target; none before the first backup. Raises RepositoryError."""
        repository = Repository(self._settings, self.target, "backups")
        try:
            return catalogue.read(repository)
        except Missing:
            repository.refuse_lost()
            return Catalogue()


def volume_id(settings: Settings) -> str:
    """The id of the volume with the WAL, made when there is none."""
    path = settings.paths.wal / "id"
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        path.write_text(uuid.uuid4().hex, encoding="ascii")
        return path.read_text(encoding="ascii")


def renew_volume(settings: Settings) -> None:
    """From now on the volume counts as another one: what it had stays at the targets."""
    (settings.paths.wal / "id").unlink(missing_ok=True)


def oldest_needed(entries: Iterable[catalogue.Entry]) -> int:
    """The position from which on WAL is needed by entries; 0 when it cannot be told, and then everything is."""
    starts = [
        wal.position(str(each.parts[catalogue.POSTGRES].details["start"]))
        for each in entries
        if catalogue.POSTGRES in each.parts
    ]
    return min(starts, default=0)


def superseded(snapshots: Iterable[Snapshot], volume: str, needed: int) -> list[Snapshot]:
    """Snapshots of WAL that can go: all but the newest of each volume, and of another volume that one too when it ends
    before what is needed. snapshots: oldest first."""
    newest = {each.tag("volume"): each for each in snapshots}
    kept = {
        each.id for name, each in newest.items() if name == volume or not needed or int(each.tag("position")) >= needed
    }
    return [each for each in snapshots if each.id not in kept]


def unneeded(folders: Iterable[Path], needed: int) -> Iterator[Path]:
    """Files of WAL that end before a position. Histories of timelines stay: they are small, and tell the way."""
    for number, each in _segments(folders):
        if number < wal.number_of(needed):
            yield each


def beyond(folders: Iterable[Path], limit: int) -> Iterator[Path]:
    """The oldest complete files of WAL, as far as all together are more than so many bytes."""
    sizes = {each: each.stat().st_size for _, each in sorted(_segments(folders)) if each.suffix != wal.PARTIAL}
    excess = sum(sizes.values()) - limit
    for each, size in sizes.items():
        if excess <= 0:
            return
        excess -= size
        yield each


def _segments(folders: Iterable[Path]) -> Iterator[tuple[int, Path]]:
    """Files of WAL with their numbers."""
    for folder in folders:
        for each in folder.iterdir():
            if found := wal.segment_of(each.name):
                yield found.number, each


def metrics(shippers: Iterable[Shipper]) -> Iterator[Metric]:
    """What Prometheus reads of them."""
    found = [(each, each._receiver.state.shipped.get(each.target.location, Shipped())) for each in shippers]
    yield Metric(
        "backup_wal_shipped_timestamp_seconds",
        "Everything that was written before this moment is at the target.",
        samples=tuple(({"target": each.target.location}, shipped.until) for each, shipped in found),
    )
    yield Metric(
        "backup_wal_ship_failures_total",
        "How often WAL could not be brought to the target.",
        "counter",
        tuple(({"target": each.target.location}, float(each.errors)) for each, _ in found),
    )
