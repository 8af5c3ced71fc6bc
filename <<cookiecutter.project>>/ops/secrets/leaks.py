"""Looks for the values of secrets where they do not belong: in files of the project and in the history of git.

What is looked at is bounded in time, number and size, so that a dump that lies in the project's folder costs seconds
and a megabyte of memory. Whatever was left out is told.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ops.secrets import git

# Shorter values would be found by chance, and are reported as too weak anyway.
SEARCHABLE_LENGTH = 8
# Of the encoded form, for the same reason.
_SEARCHABLE_BYTES = 8
_CHUNK = 1 << 20
# Where a file is told to be text or not, as git does it: by a zero byte near its beginning.
_HEAD = 8000


@dataclass(frozen=True)
class Limits:
    """How much is looked at: bytes of one file, bytes, files and seconds in all."""

    file_bytes: int = 16 << 20
    bytes: int = 256 << 20
    files: int = 20_000
    seconds: float = 20


LIMITS = Limits()


def spellings(value: str) -> set[bytes]:
    """The ways in which a value turns up in text: as it is, in Compose, in JSON, in a URL, and inside base64."""
    plain = {value, value.replace("$", "$$"), json.dumps(value)[1:-1], quote(value, safe="")}
    return {each.encode() for each in plain} | _encoded(value.encode())


def _encoded(value: bytes) -> set[bytes]:
    """Base64 of anything that holds the value, such as `user:password`: its middle, which no neighbour changes.

    Three bytes become four characters, so it depends on where in its group of three the value begins.
    """
    found = set()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + value)
        # Characters that also hold bits of what stands before or after it.
        first = (before * 8 + 5) // 6
        last = (before + len(value)) * 8 // 6
        for core in (whole[first:last], whole[first:last].replace(b"+", b"-").replace(b"/", b"_")):
            if len(core) >= _SEARCHABLE_BYTES:
                found.add(core)
    return found


@dataclass
class Search:
    """A search for values by the name of their secret, within limits.

    binary: files left out because they are no text. unread: files of which all or the rest was left out, because a
    limit was reached.
    """

    values: Mapping[str, str]
    limits: Limits = LIMITS
    clock: Callable[[], float] = time.monotonic
    binary: int = 0
    unread: list[str] = field(default_factory=list)
    _files: int = 0
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._wanted = {
            name: sorted(spellings(value)) for name, value in self.values.items() if len(value) >= SEARCHABLE_LENGTH
        }
        lengths = [len(each) for spelled in self._wanted.values() for each in spelled]
        self._overlap = max(lengths, default=1) - 1
        self._ends = self.clock() + self.limits.seconds

    @property
    def exhausted(self) -> bool:
        """Whether no further file is looked at."""
        return self._files >= self.limits.files or self._spent

    @property
    def _spent(self) -> bool:
        return self._bytes >= self.limits.bytes or self.clock() >= self._ends

    def in_text(self, text: str | bytes) -> list[str]:
        """Names of the secrets whose values stand in a text."""
        data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        return [name for name, wanted in self._wanted.items() if any(each in data for each in wanted)]

    def in_chunks(self, chunks: Iterable[bytes], where: str) -> list[str]:
        """Names of the secrets whose values stand in a text that comes in chunks; none for what is no text."""
        if self.exhausted:
            self.unread.append(where)
            return []
        self._files += 1
        found: dict[str, None] = {}
        tail, seen = b"", 0
        for chunk in chunks:
            if not seen and b"\0" in chunk[:_HEAD]:
                self.binary += 1
                return []
            if seen >= self.limits.file_bytes or self._spent:
                self.unread.append(where)
                break
            seen += len(chunk)
            self._bytes += len(chunk)
            # A value may lie across the border of two chunks.
            text = tail + chunk
            found.update(dict.fromkeys(self.in_text(text)))
            tail = text[-self._overlap :] if self._overlap else b""
        return list(found)

    def in_file(self, path: Path, where: str) -> list[str]:
        """Names of the secrets whose values stand in a file. Raises OSError when it cannot be read."""
        with path.open("rb", buffering=0) as file:
            return self.in_chunks(iter(lambda: file.read(_CHUNK), b""), where)

    def in_history(self, root: Path) -> Iterator[tuple[str, str]]:
        """(secret, path) for every path of which a version in the history of git holds a value. Raises Unanswered."""
        found: dict[tuple[str, str], None] = {}

        def look(blob: git.Blob, chunks: Iterator[bytes]) -> None:
            found.update(dict.fromkeys((name, blob.path) for name in self.in_chunks(chunks, blob.path)))

        git.contents(root, self._affordable(git.history(root)), look)
        yield from found

    def _affordable(self, blobs: list[git.Blob]) -> Iterator[git.Blob]:
        """Without those that are too large, and until a limit is reached."""
        for blob in blobs:
            if self.exhausted or blob.size > self.limits.file_bytes:
                self.unread.append(blob.path)
            else:
                yield blob

    def left_out(self) -> str:
        """What was not looked at, in words; "" when that is nothing."""
        parts = []
        if self.binary:
            parts.append(f"{self.binary} binary file{'s' if self.binary > 1 else ''}")
        if self.unread:
            names = ", ".join(dict.fromkeys(self.unread[:3]))
            more = len(self.unread) - 3
            limits = self.limits
            listed = f"{names}{f' and {more} more' if more > 0 else ''}"
            total = f"{limits.files} files, {limits.bytes >> 20} MiB and {limits.seconds:.0f} s in all"
            parts.append(f"all or the end of {listed} (limits: {limits.file_bytes >> 20} MiB a file; {total})")
        return "; ".join(parts)
