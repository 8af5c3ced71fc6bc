"""Small tar archives in memory: the form in which `docker cp` takes and gives files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping


def packed(files: Mapping[str, str], mode: int = 0o600) -> bytes:
    """A tar archive of files, by name."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, text in files.items():
                content = text.encode()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), mode
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, str]:
    """The text of every file in a tar archive, by name; what follows damage is left out."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                if entry.isfile() and (file := archive.extractfile(entry)):
                    found[entry.name] = file.read().decode(errors="replace")
    except tarfile.TarError:
        pass
    return found
