"""What a deploy would change, decided before anything is touched.

Compose compares a service's configuration and image, and is blind to the content of mounted files and secrets. So this
compares both: Compose's own configuration hash and image ids with the containers, and a digest of every mounted file
with the digests noted after the last successful deploy.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ops.engine import Container
from ops.environments import Environment, replace_file
from ops.stack import Service, Stack

# Services that take a changed configuration without a restart. A changed start script still needs a new container.
RELOADABLE = frozenset({"nginx"})
# PostgreSQL reads these once, when its volume is empty: recreating a database for them would be an outage for nothing.
FIRST_BOOT_ONLY = "/docker-entrypoint-initdb.d"
# Compose names a replacement like this until the container it replaces is gone; left behind by an interruption.
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{12}_(?P<name>.+)")

CREATE = "create"
RECREATE = "recreate"
SCALE = "scale"
START = "start"
RELOAD = "reload"
RUN = "run"
UNCHANGED = "unchanged"
# Compose sees no difference, but a mounted file has changed: a new container has to be asked for.
REFRESH = "refresh"


class FileState(NamedTuple):
    """A mounted file: digest of its content, and when it was last changed (seconds since the epoch)."""

    digest: str
    modified: float


class Change(NamedTuple):
    """What happens to a service, and why."""

    service: str
    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Noted:
    """What was mounted into a service when it was last deployed: path -> digest, and when that was noted."""

    at: float
    files: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Changes by service, containers to remove, and left-over temporary containers by what to do with them."""

    changes: dict[str, Change]
    orphans: tuple[Container, ...] = ()
    discard: tuple[Container, ...] = ()
    rename: tuple[tuple[Container, str], ...] = ()

    @property
    def idle(self) -> bool:
        """True when there is nothing to change."""
        return not (self.orphans or self.discard or self.rename) and all(
            change.kind == UNCHANGED for change in self.changes.values()
        )

    def of_kind(self, *kinds: str, among: Iterable[str] | None = None) -> list[str]:
        """Names of the services with such a change, in the order of the stack."""
        chosen = self.changes if among is None else set(among)
        return [name for name, change in self.changes.items() if change.kind in kinds and name in chosen]


def decide(
    stack: Stack,
    hashes: Mapping[str, str],
    containers: Sequence[Container],
    images: Mapping[str, str],
    files: Mapping[str, Mapping[str, FileState]],
    noted: Mapping[str, Noted],
) -> Plan:
    """The plan, from what is declared (stack, hashes), what exists (containers, image ids by reference) and what is
    mounted (files by service, against what was noted)."""
    discard, rename = _temporary(containers)
    aside = {each.id for each in discard}
    by_service: dict[str, list[Container]] = {name: [] for name in stack.services}
    orphans = []
    for container in containers:
        if container.service not in by_service:
            orphans.append(container)
        elif container.id not in aside:
            by_service[container.service].append(container)
    changes = {
        name: Change(
            name,
            *_change(
                service,
                by_service[name],
                hashes.get(name, ""),
                images.get(service.image, ""),
                _changed(by_service[name], files.get(name, {}), noted.get(name)),
            ),
        )
        for name, service in stack.services.items()
    }
    return Plan(changes, tuple(each for each in orphans if each.id not in aside), tuple(discard), tuple(rename))


def _change(
    service: Service, containers: Sequence[Container], config_hash: str, image_id: str, changed: Sequence[str]
) -> tuple[str, str]:
    """Kind and reason for one service."""
    if service.one_shot:
        return _one_shot(containers, config_hash, image_id)
    if not containers:
        return (CREATE, "") if service.replicas else (UNCHANGED, "")
    if any(each.config_hash != config_hash for each in containers):
        return RECREATE, "new configuration"
    if image_id and any(each.image_id != image_id for each in containers):
        return RECREATE, "new image"
    if changed:
        reason = f"{changed[0]} {f'and {len(changed) - 1} more ' if len(changed) > 1 else ''}changed"
        reload = service.name in RELOADABLE and not any(name.endswith(".sh") for name in changed)
        whole = len(containers) == service.replicas and all(each.running for each in containers)
        return (RELOAD if reload and whole else REFRESH), reason
    if len(containers) != service.replicas:
        return SCALE, f"{len(containers)} -> {service.replicas}"
    stopped = [each for each in containers if each.state in {"created", "exited", "dead"}]
    return (START, f"was {stopped[0].state}") if stopped else (UNCHANGED, "")


def _one_shot(containers: Sequence[Container], config_hash: str, image_id: str) -> tuple[str, str]:
    """A job runs again when it never ended well in its present form."""
    if not containers:
        return RUN, "never ran"
    last = containers[-1]
    if last.config_hash != config_hash:
        return RUN, "new configuration"
    if image_id and last.image_id != image_id:
        return RUN, "new image"
    if last.state != "exited" or last.exit_code:
        return RUN, "did not end well last time"
    return UNCHANGED, ""


def _temporary(containers: Sequence[Container]) -> tuple[list[Container], list[tuple[Container, str]]]:
    """Containers that an interrupted Compose left under a temporary name: those to remove, and those to rename."""
    names = {each.name for each in containers}
    discard, rename = [], []
    for container in containers:
        if match := _TEMPORARY_NAME.fullmatch(container.name):
            if container.state == "created" or match["name"] in names:
                discard.append(container)
            else:
                rename.append((container, match["name"]))
    return discard, rename


# ── content of mounted files ──────────────────────────────────────────────────────────────────────────────────────────


def mounted_files(stack: Stack, project_dir: Path) -> dict[str, dict[str, FileState]]:
    """Every file of the project that a service mounts, by service and path (relative to the project)."""
    cache: dict[Path, FileState] = {}
    found: dict[str, dict[str, FileState]] = {}
    for name, service in stack.services.items():
        # The same folder may be inside another mount of the service: it matters as little there.
        first_boot = [each.source for each in service.mounts if each.target.startswith(FIRST_BOOT_ONLY)]
        found[name] = {
            str(path.relative_to(project_dir)): state
            for mount in service.mounts
            if mount.source.is_relative_to(project_dir)
            for path, state in _states(mount.source, cache)
            if not any(path.is_relative_to(folder) for folder in first_boot)
        }
    return found


def _states(source: Path, cache: dict[Path, FileState]) -> Iterable[tuple[Path, FileState]]:
    paths = sorted(source.rglob("*")) if source.is_dir() else [source]
    for path in paths:
        # Compiled Python files come and go without anybody changing anything.
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        if path not in cache:
            cache[path] = file_state(path)
        yield path, cache[path]


def file_state(path: Path) -> FileState:
    """Digest and time of a file; a missing or unreadable one counts as empty and old."""
    try:
        return FileState(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime)
    except OSError:
        return FileState("", 0)


def _changed(containers: Sequence[Container], files: Mapping[str, FileState], noted: Noted | None) -> list[str]:
    """Paths whose content the containers have not seen.

    Containers made after the note (scaled up, or made by plain `docker compose`) saw what was there then.
    """
    if not containers:
        return []
    oldest = min(each.created for each in containers)
    if noted is None or oldest > noted.at:
        return sorted(path for path, state in files.items() if state.modified > oldest)
    differing = {path for path, state in files.items() if noted.files.get(path) != state.digest}
    return sorted(differing | (noted.files.keys() - files.keys()))


def _note_path(env: Environment) -> Path:
    return env.state_dir / "content.json"


def read_notes(env: Environment) -> dict[str, Noted]:
    """What was noted after the last successful deploy; nothing when there was none, or the file is damaged."""
    try:
        document = json.loads(_note_path(env).read_text(encoding="utf-8"))
        return {name: Noted(float(entry["at"]), dict(entry["files"])) for name, entry in document.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_notes(env: Environment, files: Mapping[str, Mapping[str, FileState]]) -> None:
    """Note what is mounted now. The digests of secrets are for the owner's eyes only."""
    at = time.time()
    document = {
        name: {"at": at, "files": {path: state.digest for path, state in entries.items()}}
        for name, entries in files.items()
    }
    env.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(_note_path(env), json.dumps(document, indent=1), 0o600)
