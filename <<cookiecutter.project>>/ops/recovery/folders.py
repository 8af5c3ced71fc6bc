"""Folders that last as long as one run: in the volume backup_scratch, which can be lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.recovery.settings import Settings


@contextmanager
def temporary(settings: Settings, name: str) -> Iterator[Path]:
    """An empty folder; gone afterwards, and what a run that was killed left in it before."""
    folder = settings.paths.scratch / name
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, with what was copied read-only into it. Raises OSError when it cannot be."""
    for each in folder.rglob("*") if folder.exists() else ():
        if each.is_dir() and not each.is_symlink():
            each.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=not folder.exists())
