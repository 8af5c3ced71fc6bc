"""Files that people upload: streamed to disk, visible only when complete."""

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import time
import unicodedata
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header

from stack.problems import Problem

_ID = re.compile(r"[0-9a-f]{32}")
_PART_SUFFIX = ".part"
# An upload without progress for this long is dead; seconds. (nginx waits 60 s for the next byte.)
_PART_LIFETIME = 600
# What a form adds to its file: boundary, headers.
FORM_OVERHEAD = 16 * 1024
_NO_ROOM = "There is no room for this file. Delete some files first."


@dataclass(frozen=True)
class Upload:
    """One file of one person."""

    id: str
    name: str
    size: int
    created_at: str


def safe_name(name: str) -> str:
    """A file's name as it may stand in a folder: no path, nothing that does not print, not too long."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    name = "".join(c if c.isalnum() or c in " ._-()+,@" else "_" for c in name if c.isprintable())
    name = name.strip(" .") or "file"
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 16:
        stem, suffix = name, ""
    while len(stem.encode()) > 150:
        stem = stem[:-1]
    return f"{stem}.{suffix}" if suffix else stem


class Uploads:
    """A folder for each person, in it a file for each upload, named `<id>-<name>`.

    An upload in progress is a hidden file there, as large as the upload may get, so it counts towards the quota in
    every process that uses the folder.

    Args:
        limit: largest file, bytes.
        quota: all files of one person, bytes.
        most: files of one person.
    """

    def __init__(self, folder: Path, limit: int, quota: int, most: int) -> None:
        self._folder, self._limit, self._quota, self._most = folder, limit, quota, most

    def _of(self, person: uuid.UUID) -> Path:
        return self._folder / str(person)

    def _list(self, person: uuid.UUID) -> list[tuple[Path, Upload]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._of(person).iterdir():
                number, _, name = path.name.partition("-")
                if not _ID.fullmatch(number):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    about = path.stat()
                    moment = datetime.fromtimestamp(about.st_mtime, UTC).isoformat()
                    found.append((path, Upload(number, name, about.st_size, moment)))
        return sorted(found, key=lambda pair: pair[1].created_at, reverse=True)

    async def list(self, person: uuid.UUID) -> list[Upload]:
        """A person's files, newest first."""
        return [upload for _, upload in await asyncio.to_thread(self._list, person)]

    async def find(self, person: uuid.UUID, number: str) -> tuple[Path, Upload]:
        """One file.

        Raises:
            Problem: 404.
        """
        for path, upload in await asyncio.to_thread(self._list, person):
            if upload.id == number:
                return path, upload
        raise Problem(404, "This file does not exist.")

    async def delete(self, person: uuid.UUID, number: str) -> None:
        """Remove one file."""
        path, _ = await self.find(person, number)
        await asyncio.to_thread(path.unlink, missing_ok=True)

    def _begin(self, person: uuid.UUID, declared: int | None) -> tuple[BinaryIO, Path, int]:
        """A file to write to, its path, and its reserved size, bytes."""
        folder = self._of(person)
        folder.mkdir(mode=0o700, exist_ok=True)
        with _alone(folder):
            sizes = [upload.size for _, upload in self._list(person)] + list(_in_progress(folder))
            if len(sizes) >= self._most:
                raise Problem(413, f"You can keep at most {self._most} files. Delete some first.")
            room = self._quota - sum(sizes)
            if room <= 0 or (declared or 0) - FORM_OVERHEAD > room:
                raise Problem(413, _NO_ROOM)
            allowed = min(self._limit, room, self._limit if declared is None else declared)
            path = folder / f".{secrets.token_hex(16)}{_PART_SUFFIX}"
            file = path.open("xb")
            file.truncate(allowed)
        return file, path, allowed

    def _finish(self, file: BinaryIO, part: Path, name: str) -> None:
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        file.close()
        part.rename(part.with_name(f"{uuid.uuid4().hex}-{safe_name(name)}"))
        folder = os.open(part.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # a rename is on disk only when its folder is
        finally:
            os.close(folder)

    async def receive(
        self, person: uuid.UUID, content_type: str, stream: AsyncIterator[bytes], declared: int | None = None
    ) -> str:
        """Keep the file of a form's field `file`, as it comes in. Returns its name.

        Args:
            declared: length of the whole form, bytes, when the client says it.

        Raises:
            Problem: 400 no such form, 413 too large or too many; nothing is kept then.
        """
        form = FileField(content_type)
        file, part, allowed = await asyncio.to_thread(self._begin, person, declared)
        received = 0
        try:
            async for chunk in stream:
                data = form.feed(chunk)
                received += len(data)
                if received > self._limit:
                    raise Problem(413, f"A file can have at most {self._limit // (1024 * 1024)} MiB.")
                if received > allowed:
                    raise Problem(413, _NO_ROOM)
                if data:
                    await asyncio.to_thread(file.write, data)
            name = form.finish()
            await asyncio.to_thread(self._finish, file, part, name)
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        return safe_name(name)

    def check(self) -> None:
        """Raise when nothing can be written. For health checks."""
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{self._folder} is not writable")

    def clean(self) -> None:
        """Remove what uploads that broke off have left, of this process or of another."""
        for part in self._folder.glob(f"*/.*{_PART_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if _is_dead(part.stat()):
                    part.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder, against other processes too."""
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_dead(part: os.stat_result) -> bool:
    return part.st_mtime < time.time() - _PART_LIFETIME


def _in_progress(folder: Path) -> Iterator[int]:
    """The reserved sizes of the uploads in progress, bytes."""
    for part in folder.glob(f".*{_PART_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            about = part.stat()
            if not _is_dead(about):
                yield about.st_size


class FileField:
    """Finds the field `file` in a multipart form, piece by piece."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:  # RFC 2046 5.1.1
            raise Problem(400, "Please choose a file.")
        self._name: str | None = None
        self._inside = self._complete = False
        self._header, self._value = b"", b""
        self._disposition = b""
        self._data: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> bytes:
        """What of this piece of the form belongs to the file."""
        try:
            self._parser.write(chunk)
        except Exception:
            raise Problem(400, "The form could not be read.") from None
        data, self._data = b"".join(self._data), []
        return data

    def finish(self) -> str:
        """The file's name, once the whole form has been fed.

        Raises:
            Problem: no file in it, or not all of it.
        """
        if not self._complete:
            raise Problem(400, "The upload was interrupted.")
        if not self._name:
            raise Problem(400, "Please choose a file.")
        return self._name

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        self._inside = options.get(b"name") == b"file" and self._name is None
        if self._inside:
            self._name = options.get(b"filename", b"").decode(errors="replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._data.append(data[start:end])

    def _on_part_end(self) -> None:
        self._inside = False

    def _on_end(self) -> None:
        self._complete = True
