"""Folders of the host that a container has mounted, and that may have been replaced underneath it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ops import engine
from ops.engine import Container


def replaced(container: Container) -> bool:
    """Whether a folder that a running container has mounted was replaced as a whole.

    A mount stays with the old folder, moved or deleted, whatever is put in its place: a reload would not see that.
    """
    return any(_replaced(container, Path(source), mounted) for mounted, source in container.mounts.items())


# How many names the folder has (a deleted one has none), then the SHA-256 of each file that the container can read.
_LOOK = 'cd "$1" || { echo 0; exit; }; stat -c %h . && find -L . -type f -exec sha256sum {} + || true'


def _replaced(container: Container, folder: Path, mounted: str) -> bool:
    """Whether the container sees another folder than the one that is there now: a deleted one, or other content.

    Where there is none now, what it sees is all it has: it would not start again. Where another user's folder is closed
    to this one, there is nothing to compare with.
    """
    try:
        if not folder.is_dir():
            return False
    except PermissionError:
        return False
    done = engine.exec_(container.id, ["sh", "-c", _LOOK, "sh", mounted])
    names, *rows = done.stdout.splitlines()
    return names == "0" or any(_differs(folder / path, digest) for digest, path in (row.split("  ", 1) for row in rows))


def _differs(file: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() != digest
    except PermissionError:
        return False  # not ours to read, so not ours to judge
    except OSError:
        return True
