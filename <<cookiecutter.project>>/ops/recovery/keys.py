"""The passwords that open the repositories of every target: for a rotation of the secret BACKUP_KEY.

A repository has one master key and any number of passwords that open it, so nothing that was saved is written anew.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.recovery.repository import Missing, Repository, WrongKey
from ops.recovery.settings import Kind, Settings


def add(settings: Settings, password: str) -> None:
    """Let another password open every repository. Raises RepositoryError for a target that does not answer."""
    for each, opens in _opened(settings, password):
        if not opens:
            with _file(settings, password) as path:
                each._run(["key", "add", f"--new-password-file={path}"])


def only(settings: Settings, password: str) -> None:
    """Let no other password open the repositories. Raises RepositoryError."""
    for each, opens in _opened(settings, password):
        if not opens:
            raise WrongKey(each.location, f"{each.location} is not opened by the password that was to stay.")
        with _file(settings, password) as path:
            opening = f"--password-file={path}"
            for key in json.loads(each._run([opening, "key", "list", "--no-lock"])):
                if not key["current"]:
                    each._run([opening, "key", "remove", key["id"]])


def accepted(settings: Settings, password: str) -> bool:
    """Whether a password opens every repository that there is. Raises RepositoryError."""
    return all(opens for _, opens in _opened(settings, password))


def _opened(settings: Settings, password: str) -> Iterator[tuple[Repository, bool]]:
    """Every repository that there is, and whether a password opens it."""
    kinds: tuple[Kind, ...] = ("backups", "wal")
    for each in (Repository(settings, target, kind) for target in settings.targets for kind in kinds):
        with _file(settings, password) as path:
            try:
                each._run([f"--password-file={path}", "cat", "config", "--no-lock"])
            except WrongKey:
                yield each, False
            except Missing:
                continue
            else:
                yield each, True


@contextmanager
def _file(settings: Settings, password: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=settings.paths.memory, prefix="key-") as file:
        file.write(password.encode())
        file.flush()
        yield Path(file.name)
