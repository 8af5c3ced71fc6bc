"""Finish a new project: make scripts executable, start a git repository, and say what to type next.

Nothing here is essential (`--accept-hooks=no` gives a project that works), all of it can run twice, and none of it
makes a secret: the project's own `invoke deploy` does that, on the machine where the stack will run.
"""

# Cookiecutter runs this with its own Python, which may be older than what the project needs.
from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ANSWERS = r"""<< cookiecutter | tojson >>"""

NEXT_STEPS = """\

{project_name} is ready in {folder}. To start it on this machine:

  cd {folder}
  python3 scripts/bootstrap.py
  source .venv/bin/activate
  invoke deploy

README.md says what comes next."""


def scripts(root: Path) -> Iterator[Path]:
    """Files that name their own interpreter in the first line."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in {".git", ".venv"}]
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    if file.read(2) == b"#!":
                        yield path


def make_executable(root: Path) -> None:
    """Give scripts the executable bits that a template unpacked from a zip archive has lost."""
    for path in scripts(root):
        path.chmod(path.stat().st_mode | 0o111)


def remove_empty_folders(root: Path) -> None:
    """Drop the folder of a CI service that was not chosen: Cookiecutter skips its file, but makes the folder."""
    for name in (".github/workflows", ".github"):
        folder = root / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def git(root: Path, *arguments: str) -> bool:
    """Run git quietly and say whether it succeeded; a machine without git is no reason to fail."""
    if not shutil.which("git"):
        return False
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False).returncode == 0


def start_repository(root: Path) -> None:
    """Make the folder a git repository, unless a repository around it tracks the project or would.

    A repository that ignores the folder is no home for it: `git add` would take nothing. No commit is made: who owns
    the project looks first, and cruft adds its own file after this hook.
    """
    inside = git(root, "rev-parse", "--is-inside-work-tree")
    if not inside or git(root, "check-ignore", "--quiet", str(root)):
        git(root, "init", "--quiet", "--initial-branch=main")


def main() -> int:
    """Do the finishing touches in the current folder, which is the new project."""
    answers = json.loads(ANSWERS)
    root = Path.cwd()
    make_executable(root)
    remove_empty_folders(root)
    start_repository(root)
    print(NEXT_STEPS.format(project_name=answers["project_name"], folder=answers["project"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
