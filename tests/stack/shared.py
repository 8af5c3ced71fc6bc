"""A stack that several modules use one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path

from .project import Project


class Shared:
    """A project of dev, deployed when it is first asked for and brought back to how it was each time after that."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._baked = _contents(project.folder)
        self._folders = _folders(project.folder)

    def ready(self) -> Project:
        """The project as it was baked, deployed and healthy."""
        self._restore_files()
        project = self._project
        if project.invoke("deploy", "--yes", code=None).returncode != 0:
            # A module left a wreck. That was its failure, and is no reason for the next one to fail.
            project.remove()
            project.invoke("deploy", "--yes")
        project.invoke("maintenance", "off")
        assert project.health()["healthy"] is True
        return project

    def _restore_files(self) -> None:
        for path in _contents(self._project.folder).keys() - self._baked.keys():
            (self._project.folder / path).unlink()
        # With what the commands keep in them, such as bytecode: a folder alone says that a service is there.
        for path in _folders(self._project.folder) - self._folders:
            shutil.rmtree(self._project.folder / path, ignore_errors=True)
        for path, content in self._baked.items():
            file = self._project.folder / path
            if not file.is_file() or file.read_bytes() != content:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)


# What the commands keep in a project: not for a person to edit, and not for these tests to take away.
_KEPT = {".git", ".state", ".venv", "__pycache__", "backups", "secrets", "textfile"}


def _contents(folder: Path) -> dict[str, bytes]:
    """The files that a person edits, by path. Git cannot be asked: the folder may lie in another repository."""
    files = (path for path in folder.rglob("*") if path.is_file())
    paths = (path.relative_to(folder) for path in files)
    return {str(path): (folder / path).read_bytes() for path in paths if _KEPT.isdisjoint(path.parts)}


def _folders(folder: Path) -> set[str]:
    """The folders that a person may make."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_dir())
    return {str(path) for path in paths if _KEPT.isdisjoint(path.parts)}
