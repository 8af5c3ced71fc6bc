"""What was rendered satisfies the linters of its languages, exactly as a user gets it: nothing is fixed on the way."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests import template
from tests.conftest import Bake

YAML_RULES = """{extends: default, rules: {
  line-length: disable,
  document-start: disable,
  comments: {min-spaces-from-content: 1},
  comments-indentation: disable,
  braces: {max-spaces-inside: 1},
  truthy: {check-keys: false},
}}"""

# DL3008: the base image's tag pins the distribution, and distributions keep no old versions to pin to.
DOCKERFILE_RULES_OFF = ("--ignore", "DL3008")


def tool(name: str) -> str:
    """The linter's program beside this Python, or on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def lint(*command: str, folder: Path) -> None:
    done = subprocess.run([tool(command[0]), *command[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def shell_scripts(folder: Path, names: Iterable[Path]) -> list[str]:
    """Shell scripts by their first line, or by their name where another program sources them."""
    return [
        str(path)
        for path in names
        if path.suffix == ".sh" or re.match(rb"#!.*\b(ba|da)?sh\b", (folder / path).read_bytes()[:64])
    ]


def dockerfiles(names: Iterable[Path]) -> list[str]:
    return [str(path) for path in names if path.name.startswith("Dockerfile")]


def own_files() -> list[Path]:
    """The template's files outside of the project's folder."""
    return [path for path in template.files_known_to_git() if path.parts[0] != template.FOLDER.name]


each_command = pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)


@each_command
def test_python_of_the_template(command: tuple[str, ...]) -> None:
    lint("ruff", *command, ".", folder=template.ROOT)


@each_command
@pytest.mark.parametrize("folder", [".", "services"])
def test_python(project: Path, folder: str, command: tuple[str, ...]) -> None:
    lint("ruff", *command, "--no-cache", ".", folder=project / folder)


@pytest.mark.parametrize("folder", [".", "services"])
def test_types(project: Path, folder: str, tmp_path: Path) -> None:
    """As strict as mypy gets; what is checked stands in the folder's pyproject.toml."""
    lint("mypy", "--strict", "--cache-dir", str(tmp_path), folder=project / folder)


@pytest.mark.parametrize("ci", template.CHOICES["ci"])
def test_yaml(bake: Bake, ci: str) -> None:
    project = bake(ci=ci)
    names = [str(path) for path in template.files(project) if path.suffix in {".yml", ".yaml"}]
    lint("yamllint", "--strict", "-d", YAML_RULES, *names, folder=project)


def test_shell(project: Path) -> None:
    lint("shellcheck", "--external-sources", *shell_scripts(project, template.files(project)), folder=project)


def test_shell_of_the_template() -> None:
    """Errors only: the entrypoints of the stand-in images keep to the wording of the official ones."""
    lint("shellcheck", "--severity=error", *shell_scripts(template.ROOT, own_files()), folder=template.ROOT)


@pytest.mark.parametrize("dialect", ["sh", "bash"])
def test_shell_syntax(project: Path, dialect: str) -> None:
    for name in shell_scripts(project, template.files(project)):
        first = (project / name).read_text(encoding="utf-8").partition("\n")[0]
        if ("bash" in first) == (dialect == "bash"):
            lint(dialect, "-n", name, folder=project)


def test_secrets_are_read_alike(project: Path) -> None:
    """Without the carriage return that editors on Windows leave: Python strips it, and both must have the same."""
    reading = re.compile(r"""(cat |<\s*)["']?/run/secrets/""")
    right = re.compile(r"""tr -d '(\\r|\\\\r)' <"?/run/secrets/""")
    wrong = [
        f"{path}:{number}"
        for path in template.files(project)
        if path.suffix in {".sh", ".py"} and "tests" not in path.parts
        for number, line in enumerate((project / path).read_text(encoding="utf-8").splitlines(), 1)
        if reading.search(right.sub("", line))
    ]
    assert wrong == []


def test_dockerfiles(project: Path) -> None:
    names = dockerfiles(template.files(project))
    assert names
    lint("hadolint", "--no-color", *DOCKERFILE_RULES_OFF, *names, folder=project)


def test_dockerfiles_of_the_template() -> None:
    """Errors only: the stand-in images are for tests and never published, so their size does not matter."""
    names = dockerfiles(own_files())
    lint("hadolint", "--no-color", "--failure-threshold", "error", *names, folder=template.ROOT)


def test_text_is_tidy(project: Path) -> None:
    """Line ends that containers can read, no space at the end of a line, one line break at the end of a file."""
    wrong = []
    for path in template.files(project):
        content = (project / path).read_bytes()
        if b"\0" in content or not content or path.suffix == ".svg":
            continue
        if (
            b"\r" in content
            or re.search(rb"[ \t]\n", content)
            or not content.endswith(b"\n")
            or content.endswith(b"\n\n")
        ):
            wrong.append(str(path))
    assert wrong == []


def test_nothing_is_left_to_do(project: Path) -> None:
    """A template that ships its own homework is not finished. (Words in capitals: `todo` is a legal name.)"""
    found = [
        f"{path}:{number}"
        for path in template.files(project)
        for number, line in enumerate((project / path).read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX|CHANGEME|HACK)\b", line)
    ]
    assert found == []
