"""What the containers of an environment have mounted, as a digest of every file.

Compose is blind to the content of mounted files and secrets; with these digests a plan is not. They are sealed with a
random key that only the engine's administrators can read (see store), so that nobody can try passwords against them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ops import engine
from ops.base.environments import relative
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container
from ops.stack.model import Mount, Service, Stack

# The file that closes the site (see maintenance.py). nginx looks for it at every request.
MAINTENANCE = "maintenance.on"
# PostgreSQL reads these once, when its volume is empty: recreating a database for them would be an outage for nothing.
FIRST_BOOT_ONLY = "/docker-entrypoint-initdb.d"
_ANSWER_SECONDS = 10.0

# Of mounted files, by path relative to the project. A file that is missing has an empty one.
Digests = Mapping[str, str]


def seal(key: str, digest: str) -> str:
    """A digest that says nothing to anybody without the key."""
    return hmac.new(bytes.fromhex(key), digest.encode(), hashlib.sha256).hexdigest()


def sealed(key: str, files: Digests) -> dict[str, str]:
    """Digests of several files, sealed."""
    return {path: seal(key, digest) for path, digest in files.items()}


def changed(now: Digests, before: Digests) -> list[str]:
    """Paths that are new, gone, or of another content."""
    return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def mounted_files(stack: Stack, project_dir: Path) -> dict[str, dict[str, str]]:
    """Digest of every file of the project that a service mounts, by service and path.

    Raises OpsError (REFUSED) for a file that this user may not read.
    """
    cache: dict[Path, str] = {}
    return {
        name: {
            path: digest
            for mount in _mounts(service, project_dir)
            for path, digest in _files(
                mount.source, mount.source.relative_to(project_dir), _first_boot(service, project_dir), cache
            )
        }
        for name, service in stack.services.items()
    }


def seen_by(container: Container, service: Service, project_dir: Path) -> dict[str, str]:
    """Digest of every file that a container has mounted now, as it declares its mounts: for one that nobody noted,
    because plain `docker compose` made it, or a deploy that was killed.

    A single file stays mounted when another one takes its place in its folder, so a running container is asked; of a
    folder it sees what the folder holds. Whether the program in it has read that since, nobody can tell.
    """
    mounts = [each for each in _mounts(service, project_dir) if each.target in container.mounts]
    ignored = _first_boot(service, project_dir)
    own = _asked(container, [each.target for each in mounts if Path(container.mounts[each.target]).is_file()])
    found: dict[str, str] = {}
    for each in mounts:
        place = each.source.relative_to(project_dir)
        if each.target in own:
            found[str(place)] = own[each.target]
        else:
            found.update(_files(Path(container.mounts[each.target]), place, ignored, {}))
    return found


def _asked(container: Container, targets: list[str]) -> dict[str, str]:
    """What a container says itself about single files, as far as its image can."""
    if not targets or not container.running:
        return {}
    try:
        done = engine.exec_(container.id, ["sha256sum", *targets], check=False, timeout=_ANSWER_SECONDS)
    except engine.TimedOut:
        return {}
    lines = (line.partition("  ") for line in done.stdout.splitlines())
    return {path: digest for digest, _, path in lines if path in targets and len(digest) == 64}


def _mounts(service: Service, project_dir: Path) -> list[Mount]:
    """Mounts of files of the project. A repository of backups changes all the time, and is nobody's to read but its
    own user's."""
    return [each for each in service.mounts if each.configures(project_dir)]


def _first_boot(service: Service, project_dir: Path) -> list[Path]:
    """Folders, relative to the project, that matter on the first boot only, also where another mount holds them."""
    return [
        each.source.relative_to(project_dir)
        for each in _mounts(service, project_dir)
        if each.target.startswith(FIRST_BOOT_ONLY)
    ]


def _files(source: Path, place: Path, ignored: Sequence[Path], cache: dict[Path, str]) -> Iterator[tuple[str, str]]:
    """Path and digest of a file, or of every file in a folder. place: where it is in the project."""
    try:
        for path in _walk(source):
            name = place / path.relative_to(source)
            # Compiled Python files come and go without anybody changing anything; maintenance is no configuration.
            if "__pycache__" in path.parts or path.name == MAINTENANCE or any(map(name.is_relative_to, ignored)):
                continue
            if path not in cache:
                cache[path] = file_digest(path)
            yield str(name), cache[path]
    except PermissionError as error:
        raise OpsError(
            f"{relative(Path(error.filename))} cannot be read: permission denied.",
            "Run this as the user who owns the project's folder, or from a checkout of your own"
            " (docs/runbook.md, Several people on one server).",
            REFUSED,
        ) from None


def _walk(source: Path) -> Iterator[Path]:
    """A file itself, or every file below a folder. Raises OSError for a folder that cannot be read."""
    if not source.is_dir():
        yield source
        return

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(source, onerror=refuse):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def file_digest(path: Path) -> str:
    """SHA-256 of a file; "" when there is none. Raises PermissionError."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
