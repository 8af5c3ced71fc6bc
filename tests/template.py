"""The template as the tests see it: its questions, its files, and how to bake it.

`python -m tests.template FOLDER [question=answer …]` bakes what a clone of this working tree would give.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "<<cookiecutter.project>>"

CONTEXT = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
QUESTIONS = {name: default for name, default in CONTEXT.items() if not name.startswith("_")}
CHOICES = {name: default for name, default in QUESTIONS.items() if isinstance(default, list)}

# What `services` = image asks for besides.
OWN_IMAGE = {"service_image": "ghcr.io/acme/shop:1.4.2", "service_port": "3000"}

ENVIRONMENTS = sorted(path.parent.name for path in FOLDER.glob("config/*/.env"))


def product() -> list[dict[str, str]]:
    """Every combination of the choices that Cookiecutter offers."""
    combinations = (dict(zip(CHOICES, answers, strict=True)) for answers in itertools.product(*CHOICES.values()))
    return [{**each, **(OWN_IMAGE if each["services"] == "image" else {})} for each in combinations]


def bake(output: Path, template: Path | None = None, hooks: bool = True, **answers: str) -> Path:
    """Bake into `output` and return the project's folder; what is baked is `template`, or what a clone of this one has.

    Cookiecutter takes an unknown answer without a word and bakes the default: here it is an error of the test.
    """
    if template is None:
        with tempfile.TemporaryDirectory() as folder:
            return bake(output, export(Path(folder) / ROOT.name), hooks, **answers)
    assert answers.keys() <= QUESTIONS.keys(), f"no such question: {answers.keys() - QUESTIONS.keys()}"
    output.mkdir(parents=True, exist_ok=True)
    baked = cookiecutter(
        str(template), no_input=True, extra_context=answers, output_dir=str(output), accept_hooks=hooks
    )
    return Path(baked)


def files_known_to_git() -> list[Path]:
    """The template's files, relative to its root: committed or new, never what .gitignore hides (caches, secrets)."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(Path(name) for name in set(names) if name and (ROOT / name).is_file())


def export(target: Path) -> Path:
    """Copy the template as a clone of it would look, with the changes that are not committed yet."""
    for path in files_known_to_git():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path)
    return target


def sources() -> list[Path]:
    """Files of the template's project folder, relative to it."""
    return [path.relative_to(FOLDER.name) for path in files_known_to_git() if path.parts[0] == FOLDER.name]


def is_copied(path: Path) -> bool:
    """Whether Cookiecutter copies a source file as it is (its own rule, for a file and for every folder above it)."""
    patterns = CONTEXT["_copy_without_render"]
    return any(fnmatch.fnmatch(str(part), pattern) for part in [path, *path.parents] for pattern in patterns)


def services() -> dict[str, str]:
    """Every Compose service and the file that defines it. Compose files are valid YAML without rendering."""
    # What these only add to belongs to a file that comes later here.
    overrides = {
        f"docker-compose.{name}.yml" for name in ("backup-volumes", "dev", "http3", "ipv6", "postgres-clients")
    }
    paths = sorted(FOLDER.glob("docker-compose*.yml"), key=lambda path: path.name not in overrides)
    return {
        name: path.name
        for path in paths
        for name in yaml.safe_load(path.read_text(encoding="utf-8")).get("services", {})
    }


def bases() -> list[str]:
    """The images that new services in Node.js and Go are built on."""
    recipes = (path.read_text(encoding="utf-8") for path in FOLDER.glob("scripts/skeletons/*/Dockerfile"))
    return sorted(
        {image for text in recipes for image in re.findall(r"^FROM \$\{REGISTRY_MIRROR\}(\S+)", text, re.MULTILINE)}
    )


def files(project: Path) -> Iterator[Path]:
    """Files of a baked project, relative to it, without git's own."""
    for path in sorted(project.rglob("*")):
        if path.is_file() and ".git" not in path.relative_to(project).parts:
            yield path.relative_to(project)


def main(output: str, *answers: str) -> int:
    """Bake into `output` and print the project's folder; questions without an answer take their default."""
    print(bake(Path(output), **dict(answer.split("=", 1) for answer in answers)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
