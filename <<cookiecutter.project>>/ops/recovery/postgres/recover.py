"""Recovers a moment: a full backup, the incremental ones on it, and WAL up to that moment.

WAL comes from the volume of this machine where that has it, and from the repository at the target otherwise. What is
missing is named before a server is started.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ops.base.errors import REFUSED, OpsError
from ops.recovery import catalogue
from ops.recovery.catalogue import Entry
from ops.recovery.log import say
from ops.recovery.postgres import base, client, server, state, wal
from ops.recovery.postgres.server import Server, Stopped
from ops.recovery.repository import Repository
from ops.recovery.settings import Settings


class MissingWal(OpsError):
    """WAL that the recovery needs is neither in the volume nor at the target."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "Choose an earlier moment, or a later entry: invoke backup --list", REFUSED)


@dataclass(frozen=True)
class Until:
    """How far to recover: to a moment, or up to a position and without what stands there; to the end by default."""

    moment: datetime | None = None
    position: str = ""

    def settings(self) -> dict[str, str]:
        """As settings of the server."""
        found = {"recovery_target_timeline": "'latest'", "recovery_target_action": "'promote'"}
        if self.position:
            return found | {"recovery_target_lsn": f"'{self.position}'", "recovery_target_inclusive": "off"}
        if self.moment:
            text = self.moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
            return found | {"recovery_target_time": f"'{text}'"}
        return found


LATEST = Until()


@contextmanager
def recovered(
    settings: Settings, repository: Repository, entry: Entry, into: Path, until: Until = LATEST
) -> Iterator[Server]:
    """A running server of this container as the stack's was at a moment, with an entry of a target as its beginning.

    into: a folder that does not exist yet; it is gone afterwards. Raises MissingWal, and OpsError for what is damaged.
    """
    try:
        into.mkdir(parents=True)
        links = catalogue.chain(catalogue.entries(repository), entry)
        first = links[-1].parts[catalogue.POSTGRES].details
        _refuse_other_major(int(first["version"]))
        data = restore_base(repository, links, into)
        folders = _wal(settings, repository, first, into, until)
        recovery = {**until.settings(), "restore_command": quoted(restore_command(folders))}
        with ExitStack() as stack:
            try:
                found = stack.enter_context(server.running(data, into / "server", recovery))
            except Stopped as error:
                if not (_SHORT in error.said and until.moment and until.moment <= _reaches(settings, repository)):
                    raise _explained(error, folders, first, until, _reaches(settings, repository)) from None
                # Nothing was committed after that moment, by which a server would know it: it has all that there was.
                command = {"restore_command": recovery["restore_command"], **LATEST.settings()}
                found = stack.enter_context(server.running(data, into / "server", command))
            yield found
    finally:
        shutil.rmtree(into, ignore_errors=True)


def restore_base(repository: Repository, links: Sequence[Entry], into: Path) -> Path:
    """The data folder of an entry, from the entries it builds on (the full one first) and itself, each proven by its
    manifest. Raises OpsError."""
    folders = []
    for number, link in enumerate(links):
        folder = into / f"backup-{number}"
        folder.mkdir(mode=0o700)
        _unpack(repository, link, folder)
        server.run(
            ["pg_verifybackup", "--no-parse-wal", "--exit-on-error", "--quiet", str(folder)],
            f"The backup of PostgreSQL in entry {link.id} is damaged",
        )
        folders.append(folder)
    if len(folders) == 1:
        return folders[0]
    data = into / "data"
    server.run(
        ["pg_combinebackup", "--no-sync", f"--output={data}", *map(str, folders)],
        f"The backups up to entry {links[-1].id} do not fit together",
    )
    for each in folders:
        shutil.rmtree(each)
    return data


def _unpack(repository: Repository, entry: Entry, folder: Path) -> None:
    argv = ["tar", "--extract", "--no-same-owner", f"--directory={folder}"]
    # A file, for nobody reads a pipe meanwhile: on a full disk tar has something to say of every file.
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=complaints) as child,
    ):
        assert child.stdin
        try:
            repository.dump(entry.parts[catalogue.POSTGRES].snapshot, f"/{base.FILE}", child.stdin)
            child.stdin.close()
        except BrokenPipeError:
            pass
        except BaseException:
            child.kill()
            raise
        finally:
            # What tar never read is still in the buffer, and closing would raise in place of what has happened.
            with suppress(BrokenPipeError):
                child.stdin.close()
        child.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
    if child.returncode:
        raise OpsError(f"The backup of PostgreSQL in entry {entry.id} cannot be unpacked: {client.last_words(said)}.")


# ── WAL ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _wal(
    settings: Settings, repository: Repository, first: Mapping[str, object], into: Path, until: Until
) -> list[Path]:
    """The folders with the WAL that a recovery reads. Raises MissingWal."""
    start, timeline = wal.position(str(first["start"])), int(str(first["timeline"]))
    least = max(wal.position(str(first["end"])), wal.position(until.position) if until.position else 0)
    system = int(str(first["system"]))
    folders = of_system([state.stream(settings.paths), state.kept(settings.paths)], system)
    hole, last = _look(folders, start, timeline)
    # A target other than this volume may have more, from another volume; this one is asked first, for it is near.
    if hole or wal.Segment(last, 0).number < wal.number_of(least - 1):
        say("info", "WAL is fetched from the target", target=repository.target.location)
        folders = [*folders, *of_system(fetch(settings, repository, into / "wal"), system)]
        hole, last = _look(folders, start, timeline)
    if last < wal.number_of(least - 1):
        name = hole or wal.Segment(last + 1, timeline).name
        raise MissingWal(f"WAL is missing: {name}. Without it the database of this entry cannot be made consistent.")
    if hole and not (until.moment or until.position):
        raise MissingWal(f"WAL is missing: {hole}. Nothing after it can be recovered.")
    return folders


def of_system(folders: Sequence[Path], system: int) -> list[Path]:
    """The folders whose WAL is of a database system. One that was made anew writes files of the same names."""

    def systems(folder: Path) -> set[int]:
        return {wal.system_of(each) for each in folder.iterdir() if wal.segment_of(each.name)} - {0}

    return [each for each in folders if each.is_dir() and not systems(each) - {system}]


def fetch(settings: Settings, repository: Repository, into: Path) -> list[Path]:
    """Restore the WAL of a target into a folder; the folders with its files, of the newest volume first."""
    source = Repository(settings, repository.target, "wal")
    newest = {each.tag("volume"): each for each in source.snapshots()}
    found = []
    for number, each in enumerate(sorted(newest.values(), key=lambda snapshot: snapshot.time, reverse=True)):
        folder = into / str(number)
        source.restore(each.id, folder)
        found += [path for path in sorted(folder.rglob("*")) if path.is_dir() and path.name in {"stream", "kept"}]
    return found


def _look(folders: Sequence[Path], start: int, timeline: int) -> tuple[str, int]:
    """What is missing of WAL from a position on, and the number of the last segment before it: `wal.missing`."""
    files = [each for folder in folders if folder.is_dir() for each in folder.iterdir()]
    histories = {number: each.read_text() for each in files if (number := wal.timeline_of_history(each.name))}
    return wal.missing((each.name for each in files), start, timeline, histories)


def restore_command(folders: Sequence[Path]) -> str:
    """The command by which a server gets a file of the WAL: from the first folder that has it, complete or not."""
    files = " ".join(f"{shlex.quote(str(each))}/%f{ending}" for each in folders for ending in ("", wal.PARTIAL))
    return f'for file in {files}; do [ ! -f "$file" ] || exec cp "$file" "%p"; done; exit 1'


def quoted(text: str) -> str:
    """A value as the configuration of the server writes it."""
    return "'" + text.replace("'", "''") + "'"


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_other_major(version: int) -> None:
    done = subprocess.run(["postgres", "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"(\d+)", done.stdout)
    here, there = int(match[1]) if match else 0, version // 10000
    if here != there:
        raise OpsError(
            f"The entry is of PostgreSQL {there}, and this image is PostgreSQL {here}, which cannot read it.",
            f"Set POSTGRES_IMAGE to PostgreSQL {there} for the restore; `invoke upgrade-database` goes on from there.",
            REFUSED,
        )


# What a server says that has read all WAL and has not come to the moment.
_SHORT = "before configured recovery target was reached"


def _reaches(settings: Settings, repository: Repository) -> datetime:
    """Everything that was written before this moment is here, or at the target."""
    received = datetime.fromtimestamp(state.read(settings.paths).until, UTC)
    return max([received, *(each.time for each in Repository(settings, repository.target, "wal").snapshots())])


def _explained(
    error: Stopped, folders: Sequence[Path], first: Mapping[str, object], until: Until, reaches: datetime
) -> OpsError:
    if _SHORT not in error.said:
        return error
    hole, last = _look(folders, wal.position(str(first["start"])), int(str(first["timeline"])))
    name = hole or wal.Segment(last + 1, int(str(first["timeline"]))).name
    return MissingWal(
        f"WAL ends before {until.moment or until.position}. Moments up to {reaches:%Y-%m-%d %H:%M:%S} UTC can be"
        f" recovered; the next file would be {name}."
    )
