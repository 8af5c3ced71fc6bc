"""Takes an entry: every part of the stack, and last the record that makes it one.

A part that fails fails the entry: there is no record then, and the next run removes what was saved until that moment.
One run at a time; a second one is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.base.errors import REFUSED, OpsError
from ops.recovery import catalogue, configuration, folders, rabbitmq, redis, volumes
from ops.recovery.catalogue import Catalogue, Entry, Part
from ops.recovery.log import say
from ops.recovery.postgres import base, dumps
from ops.recovery.repository import Repository
from ops.recovery.settings import Kind, Settings

# The members of the part FILES, beside the volumes: below the folder that `root` of its details names.
REDIS, RABBITMQ, GRAFANA = "redis.rdb", "rabbitmq.json", "grafana.db"
CONFIGURATION, SECRETS, RELEASES = "configuration", "secrets", "releases"
# The only file of the part INVENTORY.
INVENTORY_FILE = "inventory.json"


@dataclass
class _Files:
    """What is put together for the part FILES."""

    details: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def take(settings: Settings, full: bool = False, init: bool = False) -> Entry:
    """Take an entry at the first target, copy it to the others, and remove what retention no longer keeps.

    full: all of PostgreSQL, also when an incremental backup would do. init: begin anew at targets whose repository is
    gone. Raises OpsError when a part fails, and then there is no new entry; and when a target other than the first
    cannot be reached, and then there is one at the first.
    """
    with alone(settings):
        if init:
            _give_up_lost(settings)
        repositories = [Repository(settings, target, "backups") for target in settings.targets]
        first, others = repositories[0], repositories[1:]
        first.ensure()
        catalogue.remove_unfinished(first)
        found = catalogue.read(first)
        if catalogue.needs_repair(first, found):
            full = True
            _repair(settings, first, found)
        previous = None if full else catalogue.usable_predecessor(found, settings.full_days, datetime.now(UTC))
        entry = _entry(settings, first, previous)
        say("info", "entry taken", entry=entry.id, target=first.target.location)
        failed = list(_copied(entry, first, others))
        failed += _cleaned(settings, repositories)
        if failed:
            raise OpsError(f"Entry {entry.id} was taken. {' '.join(failed)}", "The next run copies what is missing.")
        return entry


@contextlib.contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Only one run takes an entry. Raises OpsError (REFUSED) while another one does."""
    settings.paths.cache.mkdir(parents=True, exist_ok=True)
    with (settings.paths.cache / "take.lock").open("w") as file:
        try:
            # Gone with the process, however that ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OpsError(
                "A backup is being taken already.", "See: invoke status, invoke logs backup", REFUSED
            ) from None
        yield


def _give_up_lost(settings: Settings) -> None:
    kinds: tuple[Kind, ...] = ("backups", "wal")
    for target in settings.targets:
        for kind in kinds:
            # One that is away stays as it is known; the entry is not copied there.
            with contextlib.suppress(OpsError):
                Repository(settings, target, kind).give_up_lost()


def _repair(settings: Settings, repository: Repository, found: Catalogue) -> None:
    """See to it that nothing of the next entry relies on data that is damaged. Raises OpsError."""
    say("warning", "the target is damaged: all of it is read, and a full backup follows", target=repository.location)
    with folders.temporary(settings, "repair") as folder:
        packs = repository.repair(folder)
    say("warning", "what was damaged is stored again with the next entry", packs=packs, target=repository.location)
    catalogue.note_repair(repository, found)


def _entry(settings: Settings, repository: Repository, previous: Entry | None) -> Entry:
    began = time.time()
    entry_id = catalogue.new_id(datetime.fromtimestamp(began, UTC))
    parts: list[Part] = []
    left_out: list[str] = []
    if settings.database_hosts:
        parts.append(base.take_base(settings, repository, entry_id, previous))
    elif settings.managed_hosts:
        parts += dumps.take(settings, repository, entry_id)
        left_out.append(
            f"PostgreSQL between backups: point-in-time recovery of {settings.managed_name} is the provider's"
        )
    else:
        left_out.append("PostgreSQL: the stack has none")
    with folders.temporary(settings, "take") as folder:
        files = _Files()
        _servers(settings, folder, files)
        _project(settings, folder, files)
        parts += _save(settings, repository, folder, files, entry_id)
    entry = catalogue.make(settings, entry_id, began, parts, [*left_out, *files.left_out])
    catalogue.commit(repository, entry)
    return entry


# ── the parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _servers(settings: Settings, folder: Path, files: _Files) -> None:
    if settings.redis_hosts:
        saved = redis.save(
            folder / REDIS, settings.redis_hosts, settings.secret("REDIS_PASSWORD"), settings.redis_sentinels
        )
        files.details[REDIS] = {"keys": saved.keys, "node": saved.node, "version": saved.version}
    else:
        files.left_out.append("Redis: the stack has none")
    if settings.rabbitmq_hosts and settings.rabbitmq_closed:
        files.left_out.append(f"RabbitMQ: {settings.rabbitmq_closed}")
    elif settings.rabbitmq_hosts:
        names = [each.partition(":")[0] for each in settings.rabbitmq_hosts]
        found = rabbitmq.definitions(names, settings.rabbitmq_user, settings.secret("RABBITMQ_PASSWORD"))
        text = (json.dumps(found, indent=2) + "\n").encode()
        (folder / RABBITMQ).write_bytes(text)
        files.details[RABBITMQ] = {**rabbitmq.counts(text), "version": found["rabbitmq_version"]}
        files.left_out.append("RabbitMQ: messages that wait in queues; its users, which are made from the secrets")
    else:
        files.left_out.append("RabbitMQ: the stack has none")


def _project(settings: Settings, folder: Path, files: _Files) -> None:
    rows = configuration.save_grafana(folder / GRAFANA)
    if rows is None:
        files.left_out.append("Grafana: it has no database")
    else:
        files.details[GRAFANA] = rows
    files.details[CONFIGURATION] = configuration.copy_configuration(folder / CONFIGURATION)
    files.details[SECRETS] = configuration.copy_secrets(folder / SECRETS, settings.with_secrets)
    files.details[RELEASES] = configuration.copy_releases(folder / RELEASES)
    if not settings.with_secrets:
        files.left_out.append("secrets but the certificate: BACKUP_SECRETS is false")
    document = configuration.deployed()
    if not document:
        files.left_out.append("volumes that are not mounted: which there are is not known before the first release")
    files.left_out += configuration.unsaved_volumes(document, "backup")


def _save(settings: Settings, repository: Repository, folder: Path, files: _Files, entry_id: str) -> Iterator[Part]:
    mounted = volumes.mounted(settings.paths.volumes)
    paths = {name: settings.paths.volumes / name for name in mounted}
    taken = {name: volumes.take_down(path) for name, path in paths.items()}
    own, _ = volumes.take_down(folder)
    snapshot = repository.save_paths([folder, *paths.values()], catalogue.tags(entry_id, catalogue.FILES))
    inventories = {name: volumes.settled(paths[name], found, states) for name, (found, states) in taken.items()}
    files.details["volumes"] = {name: each.counts for name, each in inventories.items()}
    yield catalogue.part(repository, catalogue.FILES, snapshot, {"root": str(folder), **files.details})
    everything = {str(folder): own, **{str(paths[name]): each for name, each in inventories.items()}}
    text = json.dumps({path: volumes.encode(each).decode() for path, each in everything.items()})
    snapshot = repository.save_text(INVENTORY_FILE, text, catalogue.tags(entry_id, catalogue.INVENTORY))
    yield catalogue.part(repository, catalogue.INVENTORY, snapshot, {})


# ── after ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _copied(entry: Entry, first: Repository, others: list[Repository]) -> Iterator[str]:
    """What could not be copied, a sentence each."""
    for other in others:
        try:
            other.ensure(first)
            catalogue.copy_missing(first, other)
            say("info", "entry copied", entry=entry.id, target=other.target.location)
        except OpsError as error:
            say("error", error.message, remedy=error.remedy, entry=entry.id, target=other.target.location)
            yield f"It was not copied: {error.message}"


def _cleaned(settings: Settings, repositories: list[Repository]) -> Iterator[str]:
    """Remove what retention no longer keeps; what failed, a sentence each."""
    for each in repositories:
        try:
            if gone := catalogue.remove_expired(each, settings.keep):
                say("info", "entries removed", entries=sorted(gone), target=each.target.location)
                each.prune()
        except OpsError as error:
            say("error", error.message, remedy=error.remedy, target=each.target.location)
            yield f"Old entries were not removed: {error.message}"


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    document: dict[str, Any] = json.loads(catalogue.encode(entry))
    return document
