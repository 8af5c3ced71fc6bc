"""Documents do not drift: links lead somewhere, and the commands and settings that they name exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import template
from tests.conftest import Bake

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """Markdown without fenced blocks and inline code, where brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(markdown: Path) -> set[str]:
    """Anchors that the hosting services make of headings."""
    fenceless = re.sub(r"^ *```.*?^ *```", "", markdown.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", fenceless, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(folder: Path, names: list[Path]) -> list[str]:
    broken = []
    for name in names:
        for match in LINK.finditer(without_code((folder / name).read_text(encoding="utf-8"))):
            link = match[1] or match[2]
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (folder / name).parent / path if path else folder / name
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                broken.append(f"{name}: {link}")
    return broken


@pytest.mark.parametrize("answers", template.product(), ids=lambda answers: "-".join(answers.values()))
def test_links_of_the_project(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    assert broken_links(project, [path for path in template.files(project) if path.suffix == ".md"]) == []


def test_links_of_the_template() -> None:
    own = [
        path for path in template.files_known_to_git() if path.suffix == ".md" and path.parts[0] != template.FOLDER.name
    ]
    assert broken_links(template.ROOT, own) == []


@pytest.fixture(scope="session")
def commands(project: Path) -> set[str]:
    """Names of the generated project's Invoke commands. Docker is not needed to list them."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "--list-format=json"],
        cwd=project,
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return {name for task in json.loads(done.stdout)["tasks"] for name in (task["name"], *task["aliases"])}


def test_documented_commands_exist(project: Path, commands: set[str]) -> None:
    documents = [project / path for path in template.files(project) if path.suffix in {".md", ".yml", ".sh"}]
    unknown = set()
    for document in [*documents, template.ROOT / "README.md"]:
        code = "\n".join(re.findall(r"`[^`]+`", document.read_text(encoding="utf-8"), flags=re.DOTALL))
        for name in re.findall(r"\binvoke ([a-z][a-z-]+)", code if document.suffix == ".md" else document.read_text()):
            if name not in commands:
                unknown.add(f"{document.name}: invoke {name}")
    assert unknown == set()


def test_every_command_is_in_the_readme(project: Path, commands: set[str]) -> None:
    text = (project / "README.md").read_text(encoding="utf-8")
    assert {name for name in commands if not re.search(rf"\b{re.escape(name)}\b", text)} == set()
