"""Full and incremental backups by pg_basebackup, streamed into the repository without being stored in between."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.recovery import catalogue
from ops.recovery.catalogue import Entry, Part
from ops.recovery.log import say
from ops.recovery.postgres import client, fingerprint, state, wal
from ops.recovery.repository import CommandFailed, Repository
from ops.recovery.settings import Settings

# In its snapshots.
FILE = "base.tar"
MANIFEST_FILE = "backup_manifest"
MANIFEST = "manifest"
# WAL is shipped every BACKUP_WAL_SECONDS; a target that is slow has so much longer.
_SHIP_SECONDS = 120


@dataclass(frozen=True)
class Range:
    """What a backup needs to become consistent: WAL from start to end of a timeline, of one database system."""

    system: int
    timeline: int
    start: int
    end: int


def take_base(settings: Settings, repository: Repository, entry_id: str, previous: Entry | None) -> Part:
    """Take a backup of the primary: what changed since `previous`, or all where there is none, or it is of no use.

    Then the fingerprint, where there is a standby; and WAL up to it is at the repository's target when this returns.
    Raises OpsError.
    """
    if not settings.paths.wal.is_dir():
        raise OpsError("The volume with the WAL is not mounted.", "invoke deploy")
    version = _asked(settings, "SHOW server_version_num")
    snapshot, manifest, built_on = _saved(settings, repository, entry_id, previous)
    found = range_of(manifest)
    repository.save_text(MANIFEST_FILE, manifest, catalogue.tags(entry_id, MANIFEST))
    marks = fingerprint.take(settings)
    # A recovery stops before the first record behind a position: here is one, also where nobody writes.
    end = _asked(settings, f"SELECT pg_logical_emit_message(true, 'backup', '{entry_id}')")
    _wait_for_wal(settings, repository, wal.position(end))
    details = {
        "system": str(found.system),
        "timeline": found.timeline,
        "start": wal.shown(found.start),
        "end": wal.shown(found.end),
        "version": int(version),
        "fingerprint": marks.as_json() if marks else None,
    }
    part = catalogue.part(repository, catalogue.POSTGRES, snapshot, details)
    kind = catalogue.INCREMENTAL if built_on else catalogue.FULL
    return replace(part, kind=kind, previous=built_on.id if built_on else "")


def _asked(settings: Settings, statement: str) -> str:
    """What the primary answers, once there is one."""
    return client.patiently(lambda: client.ask(client.conninfo(settings), statement))


def _saved(
    settings: Settings, repository: Repository, entry_id: str, previous: Entry | None
) -> tuple[str, str, Entry | None]:
    """The snapshot of a backup, its manifest, and the entry that it builds on."""
    base = settings.paths.scratch / "previous_manifest"
    written = settings.paths.scratch / "backup_manifest"
    settings.paths.scratch.mkdir(parents=True, exist_ok=True)
    if previous and not _fetched(repository, previous, base):
        previous = None

    def save(since: Entry | None) -> str:
        argv = [sys.executable, "-m", "ops.recovery.postgres.stream", str(written), *command(settings)]
        argv += [f"--incremental={base}"] if since else []
        return repository.save_output(argv, FILE, catalogue.tags(entry_id, catalogue.POSTGRES))

    snapshot = ""
    if previous:
        try:
            snapshot = save(previous)
        except CommandFailed as error:
            # The summaries it needs are gone, or it is of another database system: all is copied then.
            say("warning", "no incremental backup is possible: taking a full one", reason=error.message)
            previous = None
    if not previous:
        snapshot = client.patiently(lambda: save(None), CommandFailed)
    return snapshot, written.read_text(encoding="utf-8"), previous


def command(settings: Settings) -> list[str]:
    """The command line of a backup of the primary to standard output, without WAL: that is received all the time."""
    return [
        *("pg_basebackup", "--pgdata=-", "--format=tar", "--wal-method=none", "--checkpoint=fast", "--no-password"),
        *("--no-sync", f"--dbname={client.conninfo(settings, 'primary', replication=False)}"),
    ]


def _fetched(repository: Repository, entry: Entry, into: Path) -> bool:
    found = repository.snapshots(catalogue.tags(entry.id, MANIFEST))
    if found:
        into.write_text(repository.text(found[-1].id, f"/{MANIFEST_FILE}"), encoding="utf-8")
    return bool(found)


def range_of(manifest: str) -> Range:
    """What a manifest says of its backup. Raises OpsError for one that does not."""
    try:
        content = json.loads(manifest)
        ranges = [
            (wal.position(each["Start-LSN"]), wal.position(each["End-LSN"]), int(each["Timeline"]))
            for each in content["WAL-Ranges"]
        ]
        start, _, timeline = min(ranges)
        return Range(int(content["System-Identifier"]), timeline, start, max(end for _, end, _ in ranges))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise OpsError(f"The manifest of the backup cannot be read: {error!r}.") from None


def _wait_for_wal(settings: Settings, repository: Repository, end: int) -> None:
    """Until WAL up to a position is at the target. Raises OpsError when it does not come."""
    location = repository.target.location

    def there() -> bool:
        return state.read(settings.paths).shipped.get(location, state.Shipped()).position >= end

    seconds = settings.wal_seconds + _SHIP_SECONDS
    if not until(there, seconds, 1.0):
        shipped = state.read(settings.paths).shipped.get(location, state.Shipped())
        raise OpsError(
            f"WAL up to {wal.shown(end)}, which this backup needs, was not at {location} after {seconds} s: it ends at"
            f" {wal.shown(shipped.position)}{f' ({shipped.error})' if shipped.error else ''}.",
            "invoke logs --service wal-receiver",
        )
