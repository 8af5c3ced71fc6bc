"""Files: what a folder holds, taken down when it is saved and compared when it is read back.

A file that changes while it is saved is in the backup as it was at some moment; nobody can say which. Those are noted
by name and not compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ops.base.errors import OpsError

FOLDER = Path("/volumes")
# What a restore keeps in a volume while it is at work.
ASIDE = ".restore-"

_CHUNK = 1 << 20
# What holds data: no socket, pipe or device.
_KINDS = {stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG}

# What tells that a file was changed, by its path.
States = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class File:
    """A file, folder or link. digest: SHA-256 of a file's content, the target of a link, "" of a folder."""

    kind: str
    mode: int
    owner: int
    group: int
    size: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Inventory:
    """What a folder holds, by path relative to it. changing: paths that changed while it was saved."""

    files: Mapping[str, File] = field(default_factory=dict)
    changing: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Files and their bytes."""
        sizes = [each.size for each in self.files.values() if each.kind == "file"]
        return {"files": len(sizes), "bytes": sum(sizes)}


def mounted(folder: Path = FOLDER) -> list[str]:
    """The volumes that this container mounts, by the name that the Compose files give them."""
    return sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []


def take_down(folder: Path) -> tuple[Inventory, States]:
    """What is in a folder now, and what tells later that it was changed. Raises OpsError when something cannot be
    read."""
    files: dict[str, File] = {}
    states: dict[str, tuple[int, ...]] = {}
    for path, name, before in _walk(folder):
        try:
            found = _read(path, before)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OpsError(f"{path} cannot be read: {error.strerror}.", "No backup was made.") from error
        if found:
            files[name], states[name] = found, _state(before)
    return Inventory(files), states


def settled(folder: Path, taken: Inventory, states: States) -> Inventory:
    """The inventory of a folder that has been saved since: what changed meanwhile is noted as changing."""
    now = {name: _state(found) for _, name, found in _walk(folder) if stat.S_IFMT(found.st_mode) in _KINDS}
    changing = {name for name in states.keys() | now.keys() if states.get(name) != now.get(name)}
    return Inventory(taken.files, tuple(sorted(changing)))


def of_tar(stream: IO[bytes], below: str) -> Inventory:
    """What a tar stream holds, by path relative to `below`, a path in it."""
    files: dict[str, File] = {}
    prefix = below.strip("/")
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            name = info.name.strip("/")
            if name != prefix and not name.startswith(f"{prefix}/"):
                continue
            name = name.removeprefix(prefix).strip("/")
            if not name:
                continue
            if info.isdir():
                files[name] = File("folder", info.mode & 0o7777, info.uid, info.gid)
            elif info.issym():
                files[name] = File("link", 0o777, info.uid, info.gid, 0, info.linkname)
            elif info.isfile():
                content = tar.extractfile(info)
                digest = _digest(content) if content else ""
                files[name] = File("file", info.mode & 0o7777, info.uid, info.gid, info.size, digest)
    return Inventory(files)


def differences(taken: Inventory, found: Inventory) -> Iterator[str]:
    """What differs from what was taken down, a line each; what was changing is not compared."""
    for name in sorted(taken.files.keys() | found.files.keys()):
        if name in taken.changing:
            continue
        before, after = taken.files.get(name), found.files.get(name)
        if after is None:
            yield f"{name} is missing"
        elif before is None:
            yield f"{name} was not there"
        elif before != after:
            yield f"{name} has {_what(before, after)}"


def _what(before: File, after: File) -> str:
    names = {"kind": "another kind", "size": "another size", "digest": "another content", "mode": "another mode"}
    return next((words for key, words in names.items() if getattr(before, key) != getattr(after, key)), "another owner")


def encode(inventory: Inventory) -> bytes:
    """An inventory as text, a line a file."""
    lines = [json.dumps({"changing": list(inventory.changing)})]
    for name, each in sorted(inventory.files.items()):
        lines.append(json.dumps([name, each.kind, each.mode, each.owner, each.group, each.size, each.digest]))
    return ("\n".join(lines) + "\n").encode()


def decode(text: bytes) -> Inventory:
    """An inventory from its text. Raises OpsError when that is damaged."""
    try:
        head, *lines = text.decode().splitlines()
        changing = tuple(json.loads(head)["changing"])
        return Inventory({row[0]: File(*row[1:]) for row in map(json.loads, lines)}, changing)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise OpsError(f"An inventory of files cannot be read: {error}.") from error


def _walk(folder: Path) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Everything below a folder, but what a restore keeps there."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise OpsError(f"{error.filename} cannot be read: {error.strerror}.", "No backup was made.") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        if Path(parent) == folder:
            folders[:] = [each for each in folders if not each.startswith(ASIDE)]
        for each in sorted([*folders, *files]):
            path = Path(parent, each)
            try:
                yield path, str(path.relative_to(folder)), path.lstat()
            except FileNotFoundError:
                continue


def _read(path: Path, found: os.stat_result) -> File | None:
    """A file as it is; None for a socket, a pipe or a device, which hold no data."""
    mode, kind = stat.S_IMODE(found.st_mode), stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        return File("folder", mode, found.st_uid, found.st_gid)
    if kind == stat.S_IFLNK:
        return File("link", 0o777, found.st_uid, found.st_gid, 0, str(path.readlink()))
    if kind != stat.S_IFREG:
        return None
    with path.open("rb") as file:
        return File("file", mode, found.st_uid, found.st_gid, found.st_size, _digest(file))


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while data := file.read(_CHUNK):
        digest.update(data)
    return digest.hexdigest()


def _state(found: os.stat_result) -> tuple[int, ...]:
    # A folder's own times change with what is in it, which is looked at by itself.
    if stat.S_ISDIR(found.st_mode):
        return found.st_mode, found.st_uid, found.st_gid
    return found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
