"""A bare machine gets its configuration and secrets back from a target (docs/disaster-recovery.md).

What is needed is the project's repository, the target, and the secrets that open it. A file that is there already is
never replaced.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import REFUSED, OpsError
from ops.base.files import replace_file
from ops.data import part
from ops.data.backup import Tick
from ops.data.entries import Wanted
from ops.parts import targets
from ops.secrets import files as secret_files
from ops.secrets.files import publish_new
from ops.stack import model
from ops.state import lock

# The folders of the archive, with the place of each below config/<env>.
_CONFIGURATION, _SECRETS = "configuration", "secrets"
# What opens a target. The containers mount all of them; those of a kind of target that is not used are empty.
KEY, _OTHER_KEYS = "BACKUP_KEY", ("BACKUP_S3_KEY_ID", "BACKUP_S3_SECRET", "BACKUP_SSH_KEY")


@dataclass(frozen=True)
class Result:
    """What became of the files, as paths relative to config/<env>. secrets: whether the backup holds the secrets."""

    written: tuple[str, ...]
    differing: tuple[str, ...]
    secrets: bool


def restore(env: Environment, wanted: Wanted, tick: Tick = lambda _words: None) -> Result:
    """Write the files of config/<env> that are in a backup and not here. Raises OpsError, and then wrote none."""
    with lock.hold(env, f"restore --configuration --env {env.name}"):
        declared = model.load(env)
        part.require(env, declared)
        _prepare(env)
        targets.make_folder(env, declared)
        part.make_image(env, declared, tick)
        received = io.BytesIO()
        tick("reading the backup")
        part.call(env, ["configuration", wanted.entry, *_target(wanted)], tick, sink=received)
        received.seek(0)
        return _write(env, list(_entries(received)))


def _target(wanted: Wanted) -> list[str]:
    return [f"--target={wanted.target}"] if wanted.target else []


def _prepare(env: Environment) -> None:
    """Make what the container mounts, where it is missing."""
    if not secret_files.read(env, KEY):
        raise OpsError(
            f"{relative(secret_files.path_of(env, KEY))} is missing or empty, and nothing opens a backup without it.",
            f"Take it from where you keep passwords: install -Dm 0444 /dev/stdin"
            f" {relative(secret_files.path_of(env, KEY))}",
            REFUSED,
        )
    for name in _OTHER_KEYS:
        publish_new(secret_files.path_of(env, name), b"")


@dataclass(frozen=True)
class _Entry:
    """A file of the archive, or a folder (content is None). path: relative to config/<env>."""

    path: PurePosixPath
    mode: int
    content: bytes | None = None

    @property
    def secret(self) -> bool:
        return self.path.parts[:1] == (_SECRETS,)


def _entries(packed: io.BytesIO) -> Iterator[_Entry]:
    with tarfile.open(fileobj=packed, mode="r:") as tar:
        for info in tar:
            path = PurePosixPath(info.name)
            if not (info.isfile() or info.isdir()) or path.is_absolute() or ".." in path.parts:
                continue
            place = PurePosixPath(*path.parts[1:]) if path.parts[0] == _CONFIGURATION else path
            opened = tar.extractfile(info) if info.isfile() else None
            # Nobody else writes here, whatever was there.
            yield _Entry(place, info.mode & 0o755, opened.read() if opened else None)


def _write(env: Environment, found: Sequence[_Entry]) -> Result:
    folder = env.env_file.parent
    written, differing = [], []
    for each in (entry for entry in found if entry.content is None):
        if not (folder / each.path).is_dir():
            (folder / each.path).mkdir(parents=True)
            (folder / each.path).chmod(secret_files.FOLDER_MODE if each.path.parts == (_SECRETS,) else each.mode)
    for each in sorted(found, key=lambda entry: entry.path):
        content, target = each.content, folder / each.path
        if content is None:
            continue
        present = target.read_bytes() if target.exists() else None
        # A line break at the end of a secret does not count: it was typed.
        same = present == content or (each.secret and present is not None and present.strip() == content.strip())
        if same or (each.secret and _is_empty_key(each.path, content)):
            continue
        if present is not None and present.strip():
            differing.append(str(each.path))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content, each.mode)
        written.append(str(each.path))
    names = {each.path.name for each in found if each.secret}
    return Result(tuple(written), tuple(differing), KEY in names)


def _is_empty_key(path: PurePosixPath, content: bytes) -> bool:
    return path.name in _OTHER_KEYS and not content.strip()


def as_json(result: Result) -> dict[str, Any]:
    """The result for programs."""
    return {"written": list(result.written), "differing": list(result.differing), "secrets": result.secrets}


def show(result: Result, env: Environment) -> None:
    """The result for people."""
    folder = relative(env.env_file.parent)
    console.say(f"wrote {console.amount(len(result.written), 'file')} below {folder}", "green")
    for name in result.differing:
        console.warn(f"{folder}/{name} differs from the backup, and was left as it is.")
    if not result.secrets:
        console.warn(
            "The backup holds no secrets (BACKUP_SECRETS was false): copy those you keep with your passwords to"
            f" {relative(env.secrets_dir)}. `invoke secret-init` makes new ones for what is missing."
        )
