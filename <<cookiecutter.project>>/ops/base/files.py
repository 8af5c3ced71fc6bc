"""Files that are written in one step: whoever reads one, or comes back after a power cut, finds the old content or the
new, never half. Standard library only, like all that the post-generation hook needs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def complete_file(target: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A finished, synced file of that mode beside `target`, whatever the umask; gone afterwards."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def replace_file(target: Path, content: str | bytes, mode: int) -> None:
    """Write `target` in one step, also over an older version. Containers that mount it keep the older one."""
    with complete_file(target, content.encode() if isinstance(content, str) else content, mode) as complete:
        complete.replace(target)
