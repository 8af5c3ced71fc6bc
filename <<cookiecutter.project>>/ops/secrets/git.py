"""What git says about the project. Bytes, because a file name need not be UTF-8 and a blob need not be text."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# git answers within milliseconds; on a slow disk, the history of a large project may take seconds.
ANSWER_SECONDS = 60
_CHUNK = 1 << 20


class Unanswered(Exception):
    """git is not there, gave no answer in time, or refused. The text says which."""


@dataclass(frozen=True)
class Blob:
    """One version of a file in the history. size: bytes."""

    id: bytes
    path: str
    size: int


def shown(path: bytes) -> str:
    """A file name as text that can be printed, whatever bytes it has."""
    return path.decode("utf-8", errors="backslashreplace")


def _git(folder: Path, *arguments: str, data: bytes | None = None) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except OSError as error:
        raise Unanswered("git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"git gave no answer within {ANSWER_SECONDS} s") from error
    # check-ignore ends with 1 when it found nothing.
    if done.returncode not in (0, 1):
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unanswered(f"git: {lines[0] if lines else f'exit code {done.returncode}'}")
    return done.stdout


def check_work_tree(folder: Path) -> None:
    """Raises Unanswered, with the reason, when a folder is in no work tree of git."""
    try:
        inside = _git(folder, "rev-parse", "--is-inside-work-tree").strip() == b"true"
    except Unanswered as error:
        unknown = "not a git repository" in str(error)
        raise Unanswered("the project is in no git work tree" if unknown else str(error)) from error
    if not inside:
        raise Unanswered("the project is in no git work tree")


def _names(output: bytes) -> list[bytes]:
    return [name for name in output.split(b"\0") if name]


def tracked(root: Path, where: str) -> list[bytes]:
    """Paths below `where` that git tracks. Raises Unanswered."""
    return _names(_git(root, "ls-files", "-z", "--", where))


def project_files(root: Path) -> list[Path]:
    """Every file that git has, or would take. Raises Unanswered."""
    listed = _names(_git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z"))
    return [root / os.fsdecode(name) for name in listed]


def ignored(root: Path, names: Iterable[str]) -> set[str]:
    """Those of some paths that git ignores, tracked or not. Raises Unanswered."""
    # --no-index: a tracked file counts as not ignored otherwise.
    found = _git(root, "check-ignore", "--no-index", "-z", "--stdin", data="\0".join(names).encode())
    return {os.fsdecode(name) for name in _names(found)}


def history(root: Path) -> list[Blob]:
    """Every version of every file in the history of all branches and tags, the newest first. Raises Unanswered."""
    listed = _git(root, "rev-list", "--all", "--objects").splitlines()
    paths = dict(line.split(b" ", 1) for line in listed if b" " in line)
    form = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    described = _git(root, "cat-file", form, data=b"\n".join(paths) + b"\n") if paths else b""
    found = (line.split(b" ") for line in described.splitlines())
    return [Blob(each[0], shown(paths[each[0]]), int(each[2])) for each in found if each[1] == b"blob"]


def contents(root: Path, blobs: Iterable[Blob], use: Callable[[Blob, Iterator[bytes]], None]) -> None:
    """Call `use` with each blob and its content in chunks, from one git process. Raises Unanswered."""
    command = ["git", "-C", str(root), "cat-file", "--batch"]
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise Unanswered("git is not installed") from error
    assert child.stdin and child.stdout
    output = child.stdout

    def chunks(size: int) -> Iterator[bytes]:
        while size:
            chunk = output.read(min(size, _CHUNK))
            if not chunk:
                raise Unanswered("git ended early")
            size -= len(chunk)
            yield chunk

    try:
        for blob in blobs:
            child.stdin.write(blob.id + b"\n")
            child.stdin.flush()
            if not output.readline():
                raise Unanswered("git ended early")
            content = chunks(blob.size)
            use(blob, content)
            for _rest in content:
                pass
            output.read(1)
    except OSError as error:
        raise Unanswered("git ended early") from error
    finally:
        child.kill()
        child.communicate()
