"""A base backup to standard output, with its manifest to a file besides: `stream MANIFEST COMMAND…`.

The manifest is what the next incremental backup begins with, and would otherwise have to be read back from the target.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

_BLOCK = 512
_CHUNK = 1 << 20
MANIFEST = "backup_manifest"


def copy(source: IO[bytes], sink: IO[bytes], manifest: IO[bytes]) -> bool:
    """Pass a tar archive on as it is, and its manifest to a file as well; whether it had one. Raises EOFError for an
    archive that ends within a member."""
    found = False
    while header := source.read(_BLOCK):
        sink.write(header)
        if len(header) < _BLOCK:
            raise EOFError
        if not header.strip(b"\0"):
            continue  # the end is two empty blocks
        name = header[:100].rstrip(b"\0").decode(errors="replace")
        size = _size(header[124:136]) if header[156:157] in {b"0", b"\0"} else 0
        wanted = name == MANIFEST
        found = found or wanted
        left = size
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise EOFError
            sink.write(chunk)
            if wanted:
                manifest.write(chunk)
            left -= len(chunk)
        if padding := -size % _BLOCK:
            sink.write(source.read(padding))
    sink.flush()
    return found


def _size(text: bytes) -> int:
    if text[0] & 0x80:  # as a number, where its digits would not fit
        return int.from_bytes(text[1:], "big")
    return int(text.rstrip(b"\0 ") or b"0", 8)


def main(manifest: str, *command: str) -> int:
    """Run the command; its exit code, or 1 when its archive is not whole."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child, Path(manifest).open("wb") as file:
        assert child.stdout
        try:
            complete = copy(child.stdout, sys.stdout.buffer, file)
        except EOFError:
            complete = False
    return child.returncode or (0 if complete else 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
