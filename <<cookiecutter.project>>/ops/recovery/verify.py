"""Proves an entry: restores it into servers of this container, compares, and records what came of it.

Nobody but the target is asked. What is compared was noted when the entry was taken: every table by its rows and a
checksum, keys, definitions, and every file by its content.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.base import console
from ops.base.errors import OpsError
from ops.recovery import catalogue, configuration, folders, rabbitmq, redis, take, volumes
from ops.recovery.catalogue import Entry, Part, Verification
from ops.recovery.log import say
from ops.recovery.postgres import dumps, prove
from ops.recovery.repository import Repository, Unreachable
from ops.recovery.settings import Settings
from ops.recovery.volumes import Inventory

# How many differences are named. A damaged volume may have one for every file.
NAMED = 10
# Beyond what is estimated.
_SPARE_BYTES = 256 << 20


def verify(settings: Settings, wanted: str = "") -> list[Verification]:
    """Prove entries at the first target: the one that is wanted ("latest" or an id), or all that were never proven, the
    newest first. Raises OpsError when that cannot be tried: the target is away, the disk is short."""
    repository = Repository(settings, settings.targets[0], "backups")
    known = catalogue.read(repository)
    if known.broken and not known.entries:
        raise catalogue.no_entry(known)
    entries = known.entries
    if wanted:
        chosen = [catalogue.find(known, wanted)]
    else:
        chosen = [each for each in reversed(entries) if not known.verified(each.id)]
    done = []
    for entry in chosen:
        _refuse_short_disk(settings, entries, entry)
        began = time.time()
        with folders.temporary(settings, "verify") as folder:
            problems = list(_problems(settings, repository, entry, folder))
        found = Verification(entry.id, began, time.time() - began, not problems, tuple(problems[:NAMED]), len(problems))
        catalogue.record(repository, found)
        level = "error" if problems else "info"
        say(level, "entry is damaged" if problems else "entry verified", entry=entry.id, problems=list(found.problems))
        done.append(found)
    return done


def needed_bytes(links: Sequence[Entry]) -> int:
    """How much of the disk a proof takes. links: the entries that it is restored from, itself last."""
    databases = [each.parts[catalogue.POSTGRES].size for each in links if catalogue.POSTGRES in each.parts]
    # Backups that build on each other lie beside what they are combined to.
    combined = databases[0] if len(databases) > 1 else 0
    # A dump lies beside the database that it is loaded into.
    dumped = [2 * part.size for each in links for part in each.dumps]
    return sum(databases) + combined + sum(dumped)


def _refuse_short_disk(settings: Settings, entries: Sequence[Entry], entry: Entry) -> None:
    needed = needed_bytes(catalogue.chain(entries, entry)) + _SPARE_BYTES
    free = shutil.disk_usage(settings.paths.scratch).free
    if free < needed:
        raise OpsError(
            f"The volume backup_scratch has {console.size(free)} free; to restore {entry.id} takes up to"
            f" {console.size(needed)}.",
            "Free some space on the disk of the engine.",
        )


def _problems(settings: Settings, repository: Repository, entry: Entry, folder: Path) -> Iterator[str]:
    """What is wrong with an entry, a line each. Raises OpsError only when that could not be found out."""
    proofs = (
        (catalogue.POSTGRES in entry.parts, catalogue.POSTGRES, _postgres),
        (bool(entry.dumps), catalogue.POSTGRES, _dumps),
        (catalogue.FILES in entry.parts, catalogue.FILES, _files),
    )
    for held, name, prove_part in proofs:
        if not held:
            continue
        try:
            yield from prove_part(settings, repository, entry, folder)
        except Unreachable:
            raise
        except OpsError as error:
            yield f"{name}: {error.message}"


def _postgres(settings: Settings, repository: Repository, entry: Entry, folder: Path) -> Iterator[str]:
    yield from prove.problems(settings, repository, entry, folder / "postgres")


def _dumps(_: Settings, repository: Repository, entry: Entry, folder: Path) -> Iterator[str]:
    yield from dumps.problems(repository, entry, folder / "dumps")


def _files(_: Settings, repository: Repository, entry: Entry, folder: Path) -> Iterator[str]:
    part = entry.parts[catalogue.FILES]
    noted = json.loads(repository.text(entry.parts[catalogue.INVENTORY].snapshot, f"/{take.INVENTORY_FILE}"))
    root = str(part.details["root"])
    for path, text in noted.items():
        found = _read_back(repository, part.snapshot, path)
        label = "" if path == root else f"volume {Path(path).name}: "
        for each in volumes.differences(volumes.decode(text.encode()), found):
            yield f"{label}{each}"
    into = folder / "files"
    repository.restore(part.snapshot, into, folder=root)
    yield from _loaded(into, part)
    folders.remove(into)


def _read_back(repository: Repository, snapshot: str, path: str) -> Inventory:
    """What a folder of a snapshot holds, every byte of it read."""
    reading, writing = os.pipe()
    found: list[Inventory] = []
    failed: list[BaseException] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as stream:
            try:
                found.append(volumes.of_tar(stream, path))
            except BaseException as error:
                failed.append(error)
            # Whoever writes must come to an end.
            while stream.read(1 << 20):
                pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        with os.fdopen(writing, "wb") as stream:
            repository.dump(snapshot, path, stream)
    finally:
        reader.join()
    if failed:
        raise OpsError(f"{path} cannot be read back: {failed[0]}.")
    return found[0]


def _loaded(folder: Path, part: Part) -> Iterator[str]:
    """What is wrong with the members of the part FILES that a server or a program reads."""
    details = part.details
    if take.REDIS in details:
        noted, keys = details[take.REDIS]["keys"], redis.load(folder / take.REDIS)
        if keys != noted:
            yield f"Redis: {keys} keys were loaded, {noted} were saved"
    if take.RABBITMQ in details:
        for kind, number in rabbitmq.counts((folder / take.RABBITMQ).read_bytes()).items():
            if number != details[take.RABBITMQ][kind]:
                yield f"RabbitMQ: {number} {kind}, {details[take.RABBITMQ][kind]} were saved"
    if take.GRAFANA in details:
        for table, number in configuration.rows(folder / take.GRAFANA).items():
            if number != details[take.GRAFANA].get(table):
                yield f"Grafana: {number} rows in {table}, {details[take.GRAFANA].get(table, 'none')} were saved"
