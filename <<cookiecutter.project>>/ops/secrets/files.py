"""The files that hold the secrets: read, made, replaced and rewritten."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ops.base import files
from ops.base.errors import OpsError

if TYPE_CHECKING:
    from ops.base.environments import Environment

FOLDER_MODE = 0o700
# Compose keeps the host's owner and mode, and the readers run as different users: only the folder keeps others out.
FILE_MODE = 0o444


def path_of(env: Environment, name: str) -> Path:
    """Where the secret `name` is kept."""
    return env.secrets_dir / name


def read(env: Environment, name: str) -> str:
    """The value of the secret `name`, "" when there is none; white space around it does not count."""
    return read_path(path_of(env, name))


def read_path(path: Path) -> str:
    """The value in a file, without white space around it; "" when there is none. Raises OpsError when unreadable."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as error:
        raise OpsError(f"{path} is not UTF-8 text.", f"Write it again: install -m 0444 /dev/stdin {path}") from error
    except IsADirectoryError as error:
        raise OpsError(
            f"{path} is a folder, not a file.",
            f"Docker makes one where a secret was missing: rmdir {path}, then invoke secret-init.",
        ) from error
    except OSError as error:
        raise OpsError(
            f"{path} cannot be read: {error.strerror}.", "Run this as the user who owns the secrets folder."
        ) from error


def publish_new(target: Path, content: bytes) -> bool:
    """Write `target` unless it exists, in one step; return whether it was written."""
    with files.complete_file(target, content, FILE_MODE) as complete:
        try:
            # Unlike a rename, a link cannot overwrite what somebody else made in the meantime.
            os.link(complete, target)
        except FileExistsError:
            return False
        except OSError:
            # Some shared folders know no links.
            if target.exists():
                return False
            complete.rename(target)
    return True


def replace_file(target: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Write `target` in one step, also over an older version. Containers that mount it keep the older one."""
    files.replace_file(target, content, mode)


def rewrite(target: Path, content: bytes) -> None:
    """Write `target` in place, so that containers that mount it see the new content at once.

    A mounted file is bound to its inode, hence no rename. One write of less than a page: a reader sees the old
    content or the new. When the new one is shorter, line breaks fill the rest until the file is cut, and readers strip
    them.
    """
    if not target.exists():
        publish_new(target, content)
        return
    target.chmod(FILE_MODE | 0o200)
    try:
        with target.open("r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.write(content + b"\n" * (size - len(content)))
            file.truncate(len(content))
            os.fsync(file.fileno())
    finally:
        target.chmod(FILE_MODE)
