"""What a deploy would change, decided before anything is touched.

Compose compares a service's configuration and image, and is blind to the content of mounted files and secrets. So this
compares both: Compose's own configuration hash and image ids with the containers, and a digest of every mounted file
with the digests noted for each container when it was made.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ops.base.environments import Environment, replace_file
from ops.engine import Container
from ops.stack.model import Service, Stack

# Services that take a changed configuration without a restart. A changed start script still needs a new container.
RELOADABLE = frozenset({"nginx"})
# The file that closes the site (see maintenance.py). nginx looks for it at every request.
MAINTENANCE = "maintenance.on"
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

NEW_CONFIGURATION, NEW_IMAGE = "new configuration", "new image"
LEFT_BEHIND = "left behind by a rollout that was killed"
# The restart policy of a container that a rollout has made and not taken in; no lasting service is declared with it.
PROBATION = "no"


class FileState(NamedTuple):
    """A mounted file: digest of its content, and when it was last changed (seconds since the epoch)."""

    digest: str
    modified: float


class Change(NamedTuple):
    """What happens to a service, and why."""

    service: str
    kind: str
    reason: str = ""


# By container id: what it had mounted when it was made, as path -> digest.
Notes = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Plan:
    """Changes by service, and the ids of containers that are not as declared; containers to remove, left-over temporary
    containers by what to do with them, and services whose requests an interrupted rollout left pinned to addresses."""

    changes: dict[str, Change]
    outdated: frozenset[str] = frozenset()
    orphans: tuple[Container, ...] = ()
    discard: tuple[Container, ...] = ()
    rename: tuple[tuple[Container, str], ...] = ()
    pinned: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """True when there is nothing to change."""
        return not (self.orphans or self.discard or self.rename or self.pinned) and all(
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
    notes: Notes,
    pinned: Sequence[str] = (),
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
    changes, outdated = {}, set()
    for name, service in stack.services.items():
        mine, config_hash, image_id = by_service[name], hashes.get(name, ""), images.get(service.image, "")
        if service.one_shot:
            changes[name] = Change(name, *_one_shot(mine, config_hash, image_id))
            continue
        differing = {each.id: unseen(each, files.get(name, {}), notes.get(each.id)) for each in mine}
        wrong = {each.id: _wrong(each, config_hash, image_id, differing[each.id]) for each in mine}
        outdated.update(identity for identity, reason in wrong.items() if reason)
        changes[name] = Change(name, *_change(service, mine, wrong, differing))
    return Plan(
        changes,
        frozenset(outdated),
        tuple(each for each in orphans if each.id not in aside),
        tuple(discard),
        tuple(rename),
        tuple(pinned),
    )


def _wrong(container: Container, config_hash: str, image_id: str, differing: Sequence[str]) -> str:
    """Why a container is not as declared; "" when it is."""
    if container.config_hash != config_hash:
        return NEW_CONFIGURATION
    if image_id and container.image_id != image_id:
        return NEW_IMAGE
    if container.restart_policy == PROBATION:
        return LEFT_BEHIND
    if differing:
        return f"{differing[0]} {f'and {len(differing) - 1} more ' if len(differing) > 1 else ''}changed"
    return ""


def _change(
    service: Service,
    containers: Sequence[Container],
    wrong: Mapping[str, str],
    differing: Mapping[str, Sequence[str]],
) -> tuple[str, str]:
    """Kind and reason for one lasting service. wrong, differing: by container id, why it is not as declared, and which
    mounted files it has not seen."""
    if not containers:
        return (CREATE, "") if service.replicas else (UNCHANGED, "")
    reasons = {reason for reason in wrong.values() if reason}
    # What weighs most is told first.
    for reason in (NEW_CONFIGURATION, NEW_IMAGE, LEFT_BEHIND):
        if reason in reasons:
            return RECREATE, reason
    if reasons:
        changed = [path for paths in differing.values() for path in paths]
        reload = service.name in RELOADABLE and not any(path.endswith(".sh") for path in changed)
        whole = len(containers) == service.replicas and all(each.running for each in containers)
        return (RELOAD if reload and whole else REFRESH), min(reasons)
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
        return RUN, NEW_CONFIGURATION
    if image_id and last.image_id != image_id:
        return RUN, NEW_IMAGE
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
        # Compiled Python files come and go without anybody changing anything; maintenance is no configuration.
        if path.is_dir() or "__pycache__" in path.parts or path.name == MAINTENANCE:
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


def unseen(container: Container, files: Mapping[str, FileState], noted: Mapping[str, str] | None) -> list[str]:
    """Paths whose content a container has not seen. One that nobody noted (made by plain `docker compose`) saw what was
    there when it was made."""
    if noted is None:
        return sorted(path for path, state in files.items() if state.modified > container.created)
    changed = {path for path, state in files.items() if noted.get(path) != state.digest}
    return sorted(changed | (noted.keys() - files.keys()))


def _note_path(env: Environment) -> Path:
    return env.state_dir / "content.json"


def read_notes(env: Environment) -> Notes:
    """What was noted; nothing when there was no deploy, or the file is damaged."""
    try:
        document = json.loads(_note_path(env).read_text(encoding="utf-8"))
        return {container: dict(noted.items()) for container, noted in document.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def write_notes(
    env: Environment, containers: Iterable[Container], files: Mapping[str, Mapping[str, FileState]]
) -> None:
    """Note what these containers have mounted. The digests of secrets are for the owner's eyes only."""
    document = {
        each.id: {path: state.digest for path, state in files.get(each.service, {}).items()} for each in containers
    }
    env.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(_note_path(env), json.dumps(document, indent=1), 0o600)
