"""What the containers of an environment have mounted: a digest of every file, and what was noted when each was made.

Compose is blind to the content of mounted files and secrets; with these digests a plan is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ops.base.environments import Environment, replace_file
from ops.engine import Container
from ops.stack.model import Stack

# The file that closes the site (see maintenance.py). nginx looks for it at every request.
MAINTENANCE = "maintenance.on"
# PostgreSQL reads these once, when its volume is empty: recreating a database for them would be an outage for nothing.
FIRST_BOOT_ONLY = "/docker-entrypoint-initdb.d"

# Of mounted files, by path.
Digests = Mapping[str, str]
# By container id: what it had mounted when it was made.
Notes = Mapping[str, Digests]


class FileState(NamedTuple):
    """A mounted file: digest of its content, and when it was last changed (seconds since the epoch)."""

    digest: str
    modified: float


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


def changed(now: Digests, before: Digests) -> list[str]:
    """Paths that are new, gone, or of another content."""
    return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def mounted_by(container: Container, files: Mapping[str, FileState], noted: Digests | None) -> Digests:
    """What a container has mounted. One that nobody noted (made by plain `docker compose`) saw what was there when it
    was made."""
    if noted is not None:
        return noted
    return {path: each.digest for path, each in files.items() if each.modified <= container.created}


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
