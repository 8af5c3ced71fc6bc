"""A moment of the past as a portable archive: what the commands on the host restore from.

PostgreSQL is recovered to the wanted moment in this container and dumped; Redis, RabbitMQ and volumes come from the
entry as they are. Nothing is taken from the stack, and nothing in it is changed.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from ops.base import console
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.recovery import archive, catalogue, contents, folders, rabbitmq, serve
from ops.recovery.catalogue import FILES, POSTGRES, Entry
from ops.recovery.log import say
from ops.recovery.postgres import client, dumps, recover, server, state
from ops.recovery.repository import Repository, RepositoryError
from ops.recovery.settings import Settings, Target

# As far as the write-ahead log reaches.
NEWEST = "newest"
# What is made here goes below this folder of the scratch volume. Only one restore is at work at a time.
_FOLDER = "restore"
# Folders of an entry's part FILES, below the one that its details call root.
CONFIGURATION, SECRETS = "configuration", "secrets"
# For a while the base, the WAL and the dump are there together.
_SPACE_FACTOR = 2
# Of bytes that are copied.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """What to bring back. entry: an id or "latest"; until: PostgreSQL's moment, NEWEST, or None for that of the entry;
    target: a part of the location of one, "" for the first."""

    entry: str = catalogue.LATEST
    until: datetime | str | None = None
    target: str = ""


def wanted(entry: str, until: str, target: str) -> Wanted:
    """What a command line asks for. until: a time in ISO 8601 with its zone, NEWEST, or "" for that of the entry."""
    moment = datetime.fromisoformat(until) if until and until != NEWEST else until or None
    return Wanted(entry, moment, target)


@dataclass(frozen=True)
class Plan:
    """What would be brought back.

    moment: PostgreSQL's; entry_moment: that of everything else; members: of the archive, with what is known of their
    content; databases_known: whether these are all databases; space: bytes that it takes here meanwhile.
    """

    entry: str
    target: str
    moment: str
    entry_moment: str
    project: str
    environment: str
    versions: Mapping[str, str]
    members: Mapping[str, Mapping[str, Any]]
    databases_known: bool
    left_out: tuple[str, ...]
    space: int


@dataclass(frozen=True)
class Chosen:
    """The entry that a moment is recovered from, where it is, and all that are there."""

    repository: Repository
    wal: Repository
    entry: Entry
    entries: tuple[Entry, ...]
    until: datetime | str | None


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def choose(settings: Settings, wanted: Wanted) -> Chosen:
    """Find the entry. Raises OpsError when there is none, or the moment is not within what can be recovered."""
    target = target_of(settings, wanted.target)
    repository, wal = Repository(settings, target, "backups"), Repository(settings, target, "wal")
    found = catalogue.read(repository)
    if wanted.until is None or wanted.entry != catalogue.LATEST:
        entry = catalogue.find(found, wanted.entry)
        if isinstance(wanted.until, datetime) and wanted.until < entry.ended:
            raise OpsError(
                f"{wanted.until:%Y-%m-%d %H:%M:%S} UTC is before the end of {entry.id}.",
                "Leave the id out, and the entry before that moment is taken.",
                USAGE,
            )
    elif isinstance(wanted.until, datetime):
        entry = catalogue.before(found, wanted.until)
    else:
        entry = catalogue.find(found, catalogue.LATEST)
    if entry.id in found.failed:
        raise OpsError(
            f"{entry.id} is damaged: its verification found {'; '.join(found.verified(entry.id).problems)}."  # type: ignore[union-attr]
            " Nothing was changed.",
            "Choose another entry: invoke backup --list",
            REFUSED,
        )
    if wanted.until is not None and entry.dumps:
        raise OpsError(
            f"{entry.id} holds dumps of a PostgreSQL outside of the stack, which are of one moment.",
            "Leave --to out. Recovery to any other moment is the provider's.",
            USAGE,
        )
    if wanted.until is not None and POSTGRES not in entry.parts:
        raise OpsError(f"{entry.id} has no PostgreSQL, so --to has no meaning.", "Leave --to out.", USAGE)
    catalogue.chain(found.entries, entry)
    return Chosen(repository, wal, entry, found.entries, wanted.until)


def target_of(settings: Settings, name: str) -> Target:
    """The target that is meant, by any part of its location; the first one for "". Raises OpsError (USAGE)."""
    found = [each for each in settings.targets if name in each.location]
    exact = [each for each in found if each.location == name]
    if exact or len(found) == 1 or (found and not name):
        return (exact or found)[0]
    known = ", ".join(each.location for each in settings.targets)
    what = f"{len(found)} targets have {name} in their location" if found else f"There is no target {name}"
    raise OpsError(f"{what}.", f"BACKUP_TARGETS names {known}.", USAGE)


def plan(settings: Settings, wanted: Wanted) -> Plan:
    """What `wanted` would bring back. Raises OpsError when it cannot, and nothing was changed then."""
    chosen = choose(settings, wanted)
    entry = chosen.entry
    left_out = list(entry.left_out)
    versions: dict[str, str] = {}
    members: dict[str, Mapping[str, Any]] = {}
    known = True
    if POSTGRES in entry.parts:
        details = entry.parts[POSTGRES].details
        versions["postgres"] = version_of(int(details["version"]))
        refuse_other_major(entry, versions["postgres"], _here())
        noted = details.get("fingerprint") or {"databases": {}}
        # Without a standby nobody has counted: which databases there are, the recovered server says.
        known = bool(noted["databases"])
        for name, tables in noted["databases"].items() or [(settings.database, {})]:
            member = archive.POSTGRES if name == settings.database else archive.database(name)
            # What it takes is only known of all of them together.
            size = _full_size(chosen) if name == settings.database else 0
            if archive.is_member(member) and name not in _OWN_DATABASES:
                rows = {table: rows for table, (rows, _) in tables.items()}
                members[member] = {"database": name, "database_bytes": size, "rows": rows}
            elif name not in _OWN_DATABASES:
                left_out.append(f"database {name}: an archive cannot hold one of that name")
    for each in entry.dumps:
        name, rows = str(each.details["database"]), {table: rows for table, (rows, _) in each.details["tables"].items()}
        member = archive.POSTGRES if name == settings.database else archive.database(name)
        versions["postgres"] = version_of(int(each.details["version"]))
        members[member] = {"database": name, "database_bytes": each.size, "rows": rows}
    if FILES in entry.parts:
        details = entry.parts[FILES].details
        for part, member in (("redis", archive.REDIS), ("rabbitmq", archive.RABBITMQ)):
            if found := details.get(member):
                versions[part] = str(found["version"])
                members[member] = {"expiring": 0, **found}
        members |= {archive.volume(name): found for name, found in details["volumes"].items()}
    return Plan(
        entry.id,
        chosen.repository.target.location,
        _moment(settings, chosen).isoformat(),
        entry.began.isoformat(),
        entry.project,
        entry.environment,
        versions,
        members,
        known,
        tuple(left_out),
        _full_size(chosen) * _SPACE_FACTOR,
    )


# Every server has them, and nobody keeps anything there.
_OWN_DATABASES = frozenset({"postgres", "template1"})


def _full_size(chosen: Chosen) -> int:
    links = catalogue.chain(chosen.entries, chosen.entry)
    return sum(part.size for link in links for part in link.parts.values())


def _moment(settings: Settings, chosen: Chosen) -> datetime:
    """The moment that PostgreSQL will have. Of NEWEST it is the one up to which WAL is known to be there."""
    if isinstance(chosen.until, datetime):
        return chosen.until
    if chosen.until == NEWEST:
        shipped = [each.time for each in chosen.wal.snapshots()]
        received = state.read(settings.paths).until
        return max([chosen.entry.ended, *shipped, datetime.fromtimestamp(received, UTC)])
    return chosen.entry.began


def version_of(number: int) -> str:
    """A version of PostgreSQL as people write it: 180006 is 18.6."""
    return f"{number // 10000}.{number % 10000}"


def _here() -> str:
    done = subprocess.run(["postgres", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)?", done.stdout)
    return found[0] if found else ""


def refuse_other_major(entry: Entry, written: str, here: str) -> None:
    """Raise OpsError (REFUSED) when the server here is of another major version than the one that was backed up."""
    if (major := written.split(".")[0]) != here.split(".")[0]:
        raise OpsError(
            f"{entry.id} holds files of PostgreSQL {written}; PostgreSQL {here} runs here and cannot read them."
            " Nothing was changed.",
            f"Set POSTGRES_IMAGE to version {major} where you restore it, then see docs/upgrade-database.md; or restore"
            " an archive of `invoke backup --portable`.",
            REFUSED,
        )


# ── bringing it back ──────────────────────────────────────────────────────────────────────────────────────────────────


def materialize(settings: Settings, wanted: Wanted, members: Collection[str], sink: IO[bytes]) -> None:
    """Write the archive to `sink`. members: of the archive, as `plan` names them; all of them without.

    Raises OpsError when something cannot be read or recovered; nothing was written then.
    """
    found = plan(settings, wanted)
    chosen = choose(settings, wanted)
    files = [name for name in found.members if not _is_database(name) and (not members or name in members)]
    databases = [name for name in members or found.members if _is_database(name)]
    with folders.temporary(settings, _FOLDER) as folder:
        refuse_short_disk(folder, found.space)
        facts = archive.Facts(
            found.project.removesuffix(f"-{found.environment}"),
            found.environment,
            datetime.fromisoformat(found.moment).astimezone(UTC).replace(microsecond=0),
            found.versions,
        )
        with archive.create(folder / "archive", facts) as writer:
            if databases:
                _write_databases(settings, chosen, folder, databases, writer)
            for name in files:
                _write_file(chosen, name, writer)
            if not writer.counts:
                raise OpsError(f"At that moment there was no {', '.join(members)}. Nothing was changed.", code=USAGE)
        with (folder / "archive" / archive.file_name(facts)).open("rb") as file:
            shutil.copyfileobj(file, sink, _CHUNK)
        sink.flush()
    # A target that may only be read restores as well.
    with suppress(RepositoryError):
        catalogue.note_restore(chosen.repository, chosen.entry.id)


def _is_database(member: str) -> bool:
    return member == archive.POSTGRES or bool(archive.databases([member]))


def recover_into(settings: Settings, wanted: Wanted, into: Path) -> None:
    """Recover PostgreSQL below a folder, for a server to use (serve.py). Raises OpsError."""
    found, chosen = plan(settings, wanted), choose(settings, wanted)
    if not chosen.entry.holds_database:
        raise OpsError(f"{chosen.entry.id} has no PostgreSQL.", "See: invoke backup --list", USAGE)
    refuse_short_disk(into, found.space)
    with _recovered(settings, chosen, into / "work") as running:
        # It writes everything down, and is moved out of a folder that is removed.
        server.run(["pg_ctl", "stop", f"--pgdata={running.data}", "--mode=fast", "--wait"], "The recovered server")
        running.data.rename(into / serve.DATA)


def _recovered(settings: Settings, chosen: Chosen, folder: Path) -> AbstractContextManager[server.Server]:
    """The server as it was at the wanted moment."""
    say("info", f"recovering PostgreSQL from {chosen.entry.id}")
    if chosen.entry.dumps:
        return dumps.loaded(chosen.repository, chosen.entry, folder)
    return recover.recovered(settings, chosen.repository, chosen.entry, folder, until(chosen))


def until(chosen: Chosen) -> recover.Until:
    """How far to recover: that of an entry itself is the position at which its rows were counted."""
    if isinstance(chosen.until, datetime):
        return recover.Until(moment=chosen.until)
    if chosen.until == NEWEST:
        return recover.LATEST
    details = chosen.entry.parts[POSTGRES].details
    return recover.Until(position=str((details.get("fingerprint") or {}).get("position") or details["end"]))


def refuse_short_disk(folder: Path, needed: int) -> None:
    """Raise OpsError (REFUSED) when the disk of a folder has less than so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OpsError(
            f"The volume backup_scratch has {console.size(free)} free; the restore may need {console.size(needed)}."
            " Nothing was changed.",
            "Free some space on the disk of the engine's volumes.",
            REFUSED,
        )


def _write_databases(
    settings: Settings, chosen: Chosen, folder: Path, names: Collection[str], writer: archive.Writer
) -> None:
    """Dump those of the databases that there were."""
    with _recovered(settings, chosen, folder / "recovered") as running:
        there = running.databases()
        for name in names:
            database = settings.database if name == archive.POSTGRES else next(iter(archive.databases([name])))
            if database in there:
                say("info", f"writing the database {database}")
                _write_database(running, database, name, writer)


def _write_database(running: server.Server, database: str, name: str, writer: archive.Writer) -> None:
    where = running.conninfo(database)
    argv = ["pg_dump", "--format=custom", "--compress=zstd", "--no-password", f"--dbname={where}"]
    # Complaints go to a file: nobody reads a pipe while the dump is copied, and a full one would hold pg_dump up.
    with (
        writer.member(name) as sink,
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=complaints) as child,
    ):
        assert child.stdout
        shutil.copyfileobj(child.stdout, sink, _CHUNK)
        child.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
    if child.returncode:
        raise OpsError(f"The recovered database {database} cannot be read: {client.last_words(said)}.")
    # Its answer is statements, which psql runs: from its input only.
    counting = subprocess.run(
        client.psql(where), input=contents.COUNT_ROWS, capture_output=True, text=True, check=False
    )
    if counting.returncode:
        said = client.last_words(counting.stderr)
        raise OpsError(f"The rows of the recovered database {database} cannot be counted: {said}.")
    rows = contents.rows(counting.stdout)
    writer.describe(name, contents.of_database(database, rows, lambda text: running.sql(text, database)))


def _write_file(chosen: Chosen, name: str, writer: archive.Writer) -> None:
    """A member that comes from the entry as it is."""
    part = chosen.entry.parts[FILES]
    root = part.details["root"]
    if name == archive.REDIS:
        with writer.member(name) as sink:
            chosen.repository.dump(part.snapshot, f"{root}/{archive.REDIS}", cast("IO[bytes]", sink))
        with writer.readable(name) as snapshot:
            keys, expiring = contents.rdb_keys(snapshot)
        writer.describe(name, {"keys": keys, "expiring": expiring})
    elif name == archive.RABBITMQ:
        text = chosen.repository.text(part.snapshot, f"{root}/{archive.RABBITMQ}").encode()
        with writer.member(name) as sink:
            sink.write(text)
        writer.describe(name, rabbitmq.counts(text))
    else:
        volume = next(iter(archive.volumes([name])))
        with writer.member(name) as sink, gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1, mtime=0) as packed:
            chosen.repository.dump(f"{part.snapshot}:/volumes/{volume}", "/", cast("IO[bytes]", packed))
        with writer.readable(name) as packed_again:
            writer.describe(name, contents.count_files(packed_again, volume))


def configuration(settings: Settings, wanted: Wanted, sink: IO[bytes]) -> None:
    """Write config/<env> of an entry, and the secrets that it holds, as a tar archive of the folders CONFIGURATION
    and SECRETS. Raises OpsError."""
    chosen = choose(settings, wanted)
    refuse_stranger(settings, chosen.entry)
    if FILES not in chosen.entry.parts:
        raise OpsError(f"{chosen.entry.id} has no files.", "Choose another: invoke backup --list", USAGE)
    part = chosen.entry.parts[FILES]
    with folders.temporary(settings, _FOLDER) as folder:
        root = str(part.details["root"])
        chosen.repository.restore(part.snapshot, folder, include=[CONFIGURATION, SECRETS], folder=root)
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            for name in (CONFIGURATION, SECRETS):
                if (folder / name).is_dir():
                    tar.add(folder / name, name)
        sink.flush()


def refuse_stranger(settings: Settings, entry: Entry) -> None:
    """Raise OpsError (USAGE) for an entry of another project or environment."""
    if (entry.project, entry.environment) != (settings.project, settings.environment):
        raise OpsError(
            f"{entry.id} is a backup of {entry.project} ({entry.environment}), not of {settings.project}.",
            "Check BACKUP_TARGETS.",
            USAGE,
        )


def as_json(found: Plan) -> str:
    """A plan as a JSON document."""
    return json.dumps(asdict(found), indent=2)
