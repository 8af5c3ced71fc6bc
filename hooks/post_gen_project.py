"""Finish a new project: put in the services that were chosen, make scripts executable, start a git repository, and say
what to type next.

Without it (`--accept-hooks=no`) a project works, with the example services. None of it makes a secret: the project's
own `invoke deploy` does that, on the machine where the stack will run.
"""

# Cookiecutter runs this with its own Python, which may be older than what the project needs.
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
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


def replace_examples(root: Path, answers: dict[str, str]) -> None:
    """Put one service in the place of the examples, as `invoke service-add` does: a small one that says hello (`--from
    python`), or an image (`--from image`), at `/`.

    What is written comes from the project itself, ops/adopt and scripts/skeletons; these parts of it need nothing but
    the standard library.
    """
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(root))
    from ops.adopt import entry, skeletons

    if answers["services"] == "image":
        wanted = entry.Wanted(
            "app", entry.IMAGE, image=answers["service_image"], route="/", port=int(answers["service_port"])
        )
    else:
        wanted = entry.Wanted("hello", entry.PYTHON, route="/")
    wanted = entry.completed(wanted)
    folders = sorted(path.parent for path in root.glob("services/*/pyproject.toml"))
    examples = [folder.name for folder in folders if folder.name != "common"]
    for name in examples:
        shutil.rmtree(root / "services" / name)
    (root / "services" / "examples.md").unlink()
    files = skeletons.files(wanted, root)
    for name, text in files.items():
        path = root / wanted.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    compose = root / "docker-compose.services.yml"
    before = compose.read_text(encoding="utf-8")
    head, section, _ = before.replace(" These are examples.", "", 1).partition("\nservices:\n")
    compose.write_text(entry.put(head + section, wanted), encoding="utf-8")

    volumes = root / "docker-compose.backup-volumes.yml"
    text = volumes.read_text(encoding="utf-8")
    volumes.write_text(re.sub(r" volumes:\n( +- .*\n)+", " volumes: []\n", text), encoding="utf-8")

    clients = root / "docker-compose.postgres-clients.yml"
    text = clients.read_text(encoding="utf-8")
    clients.write_text(re.sub(r"^services:\n(  .*\n)+", "services: {}\n", text, flags=re.MULTILINE), encoding="utf-8")

    listed = "|".join(examples)
    workspace = root / "services" / "pyproject.toml"
    text = workspace.read_text(encoding="utf-8")
    text = re.sub(rf'^({listed}) = .*\n|, "({listed})(/tests)?"', "", text, flags=re.MULTILINE)
    workspace.write_text(text, encoding="utf-8")
    tools = root / "pyproject.toml"
    text = tools.read_text(encoding="utf-8")
    text = re.sub(rf'( *"services/)({listed})(",\n)(\1({listed})\3)*', rf"\g<1>{wanted.name}\3" if files else "", text)
    tools.write_text(text, encoding="utf-8")
    remove_settings(root, unread(root, set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", before))))


def unread(root: Path, names: set[str]) -> set[str]:
    """Those of some settings that no file of a project reads. Tests and documents only name them."""
    found: set[str] = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in {".git", "tests"}]
        for path in (Path(folder, name) for name in files if not name.endswith(".md")):
            text = path.read_text(encoding="utf-8", errors="ignore")
            if path.name == ".env":
                text = " ".join(re.findall(r"\$\{(\w+)\}", text))
            found |= names.intersection(re.findall(r"[A-Z][A-Z0-9_]*", text))
    return names - found


def remove_settings(root: Path, names: set[str]) -> None:
    """Take settings out of every .env file, each with the comment above it, and a section that has none left."""
    for path in sorted(root.glob("config/*/.env")):
        sections = []
        for section in path.read_text(encoding="utf-8").split("\n\n"):
            kept: list[str] = []
            for line in section.splitlines():
                if line.partition("=")[0] not in names:
                    kept.append(line)
                    continue
                while kept and kept[-1].startswith("# ") and not kept[-1].startswith("# ----"):
                    kept.pop()
            if not section.startswith("# ----") or any(not line.startswith("#") for line in kept):
                sections.append("\n".join(kept))
        path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


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
    if answers["services"] != "example":
        replace_examples(root, answers)
    make_executable(root)
    remove_empty_folders(root)
    start_repository(root)
    print(NEXT_STEPS.format(project_name=answers["project_name"], folder=answers["project"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
