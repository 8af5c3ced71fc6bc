"""The backup archive: one plain tar file in which every byte is accounted for.

    postgres.dump            pg_dump, custom format, of the common database
    databases/NAME.dump      the same, of a database that a service has for itself
    redis.rdb                Redis snapshot
    rabbitmq.json            queues, exchanges, bindings, policies
    volumes/NAME.tar.gz      the files of a volume
    manifest.json            format version, environment, versions, size and SHA-256 of the members, what they contain
    SHA256SUMS               checksums of all of the above

Of the parts that a stack does not have there is no member. Format 1, which is still read, had the members
postgres.dump, redis.rdb, rabbitmq.json and uploads.tar.gz, the volume web_uploads, and always all of them.

The last two come last because only then they are known. `tar -xf ARCHIVE && sha256sum -c SHA256SUMS` is enough to use
one without these tools. Headers and padding follow from names, sizes and the time in the manifest, so `verify` rebuilds
and compares them: a single changed byte anywhere is noticed, and so is one missing or added. This guards against
damage, not against somebody who forges an archive on purpose.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from ops.base.errors import OpsError

FORMAT = 2
POSTGRES, REDIS, RABBITMQ = "postgres.dump", "redis.rdb", "rabbitmq.json"
# The members of format 1.
UPLOADS = "uploads.tar.gz"
MEMBERS = (POSTGRES, REDIS, RABBITMQ, UPLOADS)
_MEMBER = re.compile(
    rf"{'|'.join(map(re.escape, MEMBERS))}|databases/[a-z0-9_-]+\.dump|volumes/[\w.-]+\.tar\.gz", re.ASCII
)
MANIFEST = "manifest.json"
CHECKSUMS = "SHA256SUMS"

# It holds everything the stack knows about its users.
FILE_MODE = 0o600

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20
# A manifest lists one line a table; beyond this it is no manifest, and must not be read into memory.
_LARGEST_TEXT = 16 << 20


@dataclass(frozen=True)
class Facts:
    """What is known before the first member is written. `created_at` is in UTC, whole seconds."""

    project: str
    environment: str
    created_at: datetime
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Member:
    """One member: its size in bytes, its SHA-256, and what it contains in numbers."""

    size: int
    sha256: str
    counts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The manifest of an archive that was found to be whole."""

    facts: Facts
    members: Mapping[str, Member]

    def counts(self, name: str) -> Mapping[str, Any]:
        """What the member `name` contains."""
        return self.members[name].counts


def database(name: str) -> str:
    """The member that holds a database which a service has for itself."""
    return f"databases/{name}.dump"


def volume(name: str) -> str:
    """The member that holds a volume."""
    return f"volumes/{name}.tar.gz"


def is_member(name: str) -> bool:
    """Whether an archive can have a member of that name."""
    return bool(_MEMBER.fullmatch(name))


def volumes(members: Iterable[str]) -> dict[str, str]:
    """The members that hold volumes, by the volume as the Compose files call it."""
    found = {
        name.removeprefix("volumes/").removesuffix(".tar.gz"): name for name in members if name.startswith("volumes/")
    }
    return {**found, **({"web_uploads": UPLOADS} if UPLOADS in members else {})}


def databases(members: Iterable[str]) -> dict[str, str]:
    """The members that hold databases which services have for themselves, by the database."""
    return {
        name.removeprefix("databases/").removesuffix(".dump"): name for name in members if name.startswith("databases/")
    }


def file_name(facts: Facts) -> str:
    """The name of the archive file: sorts by time within an environment."""
    return f"{facts.project}-{facts.environment}-{facts.created_at:%Y%m%dT%H%M%SZ}.tar"


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sink(io.RawIOBase):
    """Takes the bytes of one member; `size` and `sha256` so far."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._file.write(data)
        self._digest.update(data)
        self.size += written
        return written

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class Writer:
    """Writes an archive to a temporary file; see `create`."""

    def __init__(self, file: BinaryIO, facts: Facts) -> None:
        self._file = file
        self._facts = facts
        self._members: dict[str, Member] = {}

    @contextlib.contextmanager
    def member(self, name: str) -> Iterator[Sink]:
        """The next member, which the caller writes to; its size need not be known."""
        if name in self._members or not _MEMBER.fullmatch(name):
            raise ValueError(f"not a new member of an archive: {name}")
        sink = self._begin()
        yield sink
        self._finish(name, sink)
        self._members[name] = Member(sink.size, sink.sha256)

    def describe(self, name: str, counts: Mapping[str, Any]) -> None:
        """Note what the member `name` contains, in numbers."""
        self._members[name] = Member(self._members[name].size, self._members[name].sha256, dict(counts))

    @property
    def counts(self) -> dict[str, Mapping[str, Any]]:
        """What was noted with `describe`, by member."""
        return {name: member.counts for name, member in self._members.items()}

    def readable(self, name: str) -> IO[bytes]:
        """A member written before, to look into it."""
        self._file.flush()
        start = 0
        for other in self._members:
            if other == name:
                break
            start += _BLOCK + _padded(self._members[other].size)
        return io.BufferedReader(_Window(self._file.fileno(), start + _BLOCK, self._members[name].size), _CHUNK)

    def close(self) -> None:
        """Write what can only be known now, and make sure that all of it is on the disk."""
        if not self._members:
            raise ValueError("nothing was written")
        manifest = _manifest_text(self._facts, self._members)
        checksums = _checksums_text(self._members, manifest)
        for name, text in ((MANIFEST, manifest), (CHECKSUMS, checksums)):
            sink = self._begin()
            sink.write(text)
            self._finish(name, sink)
        self._file.write(_END)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _begin(self) -> Sink:
        # The header needs the size, so its place is kept free until then.
        self._file.write(bytes(_BLOCK))
        return Sink(self._file)

    def _finish(self, name: str, sink: Sink) -> None:
        self._file.write(bytes(-sink.size % _BLOCK))
        end = self._file.tell()
        self._file.seek(end - _padded(sink.size) - _BLOCK)
        self._file.write(_header(name, sink.size, self._facts.created_at))
        self._file.seek(end)


class _Window(io.RawIOBase):
    """A part of an open file as a file of its own; does not move that file's position."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._position, self._end = start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, min(len(buffer), self._end - self._position), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextlib.contextmanager
def create(folder: Path, facts: Facts) -> Iterator[Writer]:
    """Write an archive into `folder`: it appears under its name only once it is complete, on disk and read back.

    Whatever ends the block early leaves nothing; a process killed with SIGKILL leaves a hidden .partial file, which the
    next call removes: nobody else may be at work here, which is what the lock of the environment is for (ops/lock.py).
    Raises OpsError when there is an archive of the same second.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for abandoned in folder.glob(".*.tar.partial"):
        abandoned.unlink()
    target = folder / file_name(facts)
    if target.exists():
        raise OpsError(f"{target} exists already.", "Run it again: the name holds the time in seconds.")
    partial = folder / f".{target.name}.partial"
    try:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "w+b") as file:
            writer = Writer(file, facts)
            yield writer
            writer.close()
        verify(partial)
        partial.rename(target)
        _sync(folder)
    finally:
        partial.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Have what was renamed in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ── the exact bytes ───────────────────────────────────────────────────────────────────────────────────────────────────


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _header(name: str, size: int, created_at: datetime) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(created_at.timestamp()), FILE_MODE
    # GNU's header holds any size in one block; the others need an extra member beyond 8 GiB.
    return info.tobuf(tarfile.GNU_FORMAT)


def _manifest_text(facts: Facts, members: Mapping[str, Member]) -> bytes:
    document = {
        "format": FORMAT,
        "project": facts.project,
        "environment": facts.environment,
        "created_at": facts.created_at.isoformat(),
        "versions": dict(facts.versions),
        "members": {
            name: {"size": member.size, "sha256": member.sha256, "counts": dict(member.counts)}
            for name, member in members.items()
        },
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _checksums_text(members: Mapping[str, Member], manifest: bytes) -> bytes:
    sums = {name: member.sha256 for name, member in members.items()}
    sums[MANIFEST] = hashlib.sha256(manifest).hexdigest()
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Damaged(OpsError):
    """The archive is not what was written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged: {what}.", "Nothing was changed. Use another backup.")


def verify(path: Path) -> Manifest:
    """Read the whole archive and return its manifest. Raises Damaged for any deviation, OpsError when unreadable."""
    try:
        with path.open("rb") as file:
            return _verify(path, file)
    except FileNotFoundError as error:
        raise OpsError(f"{path} does not exist.") from error
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}.") from error


def _verify(path: Path, file: BinaryIO) -> Manifest:
    headers: dict[str, bytes] = {}
    found: dict[str, Member] = {}
    texts: dict[str, bytes] = {}
    while CHECKSUMS not in texts:
        header = _exactly(path, file, _BLOCK, f"it ends before {CHECKSUMS if MANIFEST in texts else MANIFEST}")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise Damaged(path, "the header of a member is not readable") from error
        name = info.name
        if not (name == CHECKSUMS if MANIFEST in texts else name == MANIFEST or _MEMBER.fullmatch(name)):
            raise Damaged(path, f"{name} is not where it should be")
        if name in headers:
            raise Damaged(path, f"{name} is in it twice")
        headers[name] = header
        if name in {MANIFEST, CHECKSUMS}:
            if not 0 <= info.size <= _LARGEST_TEXT:
                raise Damaged(path, f"{name} has an impossible size")
            texts[name] = _exactly(path, file, info.size, f"it ends within {name}")
        else:
            found[name] = Member(info.size, _digest(path, file, info.size, name))
        if any(_exactly(path, file, -info.size % _BLOCK, f"it ends after {name}")):
            raise Damaged(path, f"something stands between {name} and what follows it")
    if file.read(len(_END) + 1) != _END:
        raise Damaged(path, "its end is not the end that was written")
    manifest = _parse(path, texts[MANIFEST], tuple(found))
    stated = {name: (member.size, member.sha256) for name, member in manifest.members.items()}
    actual = {name: (member.size, member.sha256) for name, member in found.items()}
    if differing := [name for name in found if stated.get(name) != actual[name]]:
        raise Damaged(path, f"{differing[0]} is not what the manifest says")
    if texts[CHECKSUMS] != _checksums_text(manifest.members, texts[MANIFEST]):
        raise Damaged(path, "the manifest does not fit its checksum")
    sizes = {
        **{name: member.size for name, member in found.items()},
        **{name: len(text) for name, text in texts.items()},
    }
    for name, header in headers.items():
        if header != _header(name, sizes[name], manifest.facts.created_at):
            raise Damaged(path, f"the header of {name} was changed")
    return manifest


def _parse(path: Path, text: bytes, found: tuple[str, ...]) -> Manifest:
    try:
        document = json.loads(text)
        version = document["format"]
        if version not in {1, FORMAT}:
            raise OpsError(
                f"{path} has format {version}; this version of the project reads formats 1 and {FORMAT}.",
                "Restore it with the version of the project that wrote it.",
            )
        facts = Facts(
            document["project"],
            document["environment"],
            datetime.fromisoformat(document["created_at"]).astimezone(UTC),
            document["versions"],
        )
        members = {
            name: Member(member["size"], member["sha256"], member["counts"])
            for name, member in document["members"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(path, "the manifest is not readable") from error
    if tuple(members) != (MEMBERS if version == 1 else found):
        raise Damaged(path, "the manifest lists other members")
    return Manifest(facts, members)


def _exactly(path: Path, file: BinaryIO, size: int, otherwise: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise Damaged(path, otherwise)
    return data


def _digest(path: Path, file: BinaryIO, size: int, name: str) -> str:
    digest = hashlib.sha256()
    left = size
    while left > 0:
        data = _exactly(path, file, min(left, _CHUNK), f"it ends within {name}")
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


@contextlib.contextmanager
def member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A member of an archive that `verify` found whole, as a readable file."""
    with tarfile.open(path, "r:") as tar:
        extracted = tar.extractfile(name)
        if extracted is None:
            raise Damaged(path, f"{name} is missing")
        with extracted:
            yield extracted
