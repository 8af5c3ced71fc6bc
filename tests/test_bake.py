"""Every combination of answers bakes into a project that holds what it should, and nothing that it should not."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jinja2
import pytest
import yaml
from cookiecutter.exceptions import OutputDirExistsException

from tests import template
from tests.conftest import Bake

# The few files that hold answers; all else is copied as it stands and can be tested in place. The CI files hold none,
# but a name that renders to nothing is passed over only for a file that is rendered.
RENDERED = (
    "README.md",
    "CHANGELOG.md",
    ".cookiecutter.json",
    "config/*/.env",
    "*.yml<% endif %>",
    "*LICENSE<% endif %>",
)
DELIMITERS = template.CONTEXT["_jinja2_env_vars"]

PRODUCT = pytest.mark.parametrize("answers", template.product(), ids=lambda answers: "-".join(answers.values()))


def contents(project: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and mode of every file of a project."""
    return {
        str(path): ((project / path).read_bytes(), (project / path).stat().st_mode) for path in template.files(project)
    }


@PRODUCT
def test_no_tag_is_left(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    for path in template.files(project):
        assert "<<" not in str(path) and "<%" not in str(path)
        text = (project / path).read_text(encoding="utf-8", errors="ignore")
        found = re.search(r"<<\s*cookiecutter|cookiecutter\.[a-z_]+\s*>>|<%-?\s*(if|for|endif|endfor|set)\b", text)
        assert found is None, f"{path}: {found}"


class Tagged(yaml.SafeLoader):
    """YAML with the two tags of Compose, which replace a value instead of merging it."""


for tag in ("!override", "!reset"):
    Tagged.add_constructor(tag, lambda _loader, _node: None)


def parse_yaml(text: str) -> object:
    return yaml.load(text, Tagged)  # noqa: S506 - a safe loader


@PRODUCT
def test_data_files_parse(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    parse = {".json": json.loads, ".toml": tomllib.loads, ".yml": parse_yaml, ".yaml": parse_yaml}
    for path in template.files(project):
        text = (project / path).read_text(encoding="utf-8") if path.suffix in parse else ""
        # nginx's own pages of errors become JSON only when nginx has filled them in.
        if text and "<!--#" not in text:
            parse[path.suffix](text)


@PRODUCT
def test_only_the_chosen_ci_is_there(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    flavours = {"github": ".github/workflows/ci.yml", "gitlab": ".gitlab-ci.yml"}
    assert {ci for ci, path in flavours.items() if (project / path).exists()} == {answers["ci"]} - {"none"}
    assert (project / ".github").exists() == (answers["ci"] == "github")


@PRODUCT
def test_only_the_chosen_license_is_there(bake: Bake, answers: dict[str, str]) -> None:
    """The default is none: a project that takes this question by an update must not give its code away."""
    assert template.CHOICES["license"][0] == "none"
    path = bake(**answers, organisation="Söhne & Co") / "LICENSE"
    first = {"MIT": "MIT License", "Apache-2.0": "Apache License"}.get(answers["license"])
    assert path.exists() == (first is not None)
    if first:
        text = path.read_text(encoding="utf-8")
        assert text.lstrip().startswith(first) and "Söhne & Co" in text


def test_every_environment_is_seen() -> None:
    """Tests are parametrised by what is in the tree: nothing there would mean nothing tested."""
    assert template.ENVIRONMENTS == ["dev", "prod", "staging"]
    assert len(template.services()) >= 20
    assert len(template.product()) == 27


def test_rendered_files_are_the_intended_few() -> None:
    """A new file must fall under `_copy_without_render`, or be put on this list for a reason."""
    rendered = {str(path) for path in template.sources() if not template.is_copied(path)}
    unexpected = {path for path in rendered if not any(fnmatch.fnmatch(path, pattern) for pattern in RENDERED)}
    assert unexpected == set()


def test_no_folder_is_copied_as_a_whole() -> None:
    """Cookiecutter empties a folder that matches before it copies it: baking over a project would lose files."""
    folders = {folder for path in template.sources() for folder in path.parents if folder != Path()}
    assert {str(folder) for folder in folders if template.is_copied(folder)} == set()


@pytest.mark.parametrize("path", [path for path in template.sources() if not template.is_copied(path)], ids=str)
def test_rendered_source_has_no_delimiter_clash(path: Path) -> None:
    """YAML merge keys (`<<:`), heredocs and shifts would be read as tags: here it is a sentence, there a traceback."""
    text = (template.FOLDER / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        for opening in re.finditer(r"<<(?!\s*[\w\"])|<<-?['\"]?EOF|\b\d+ << \d+", line):
            pytest.fail(f"{path}:{number} holds {opening[0]!r}, which Jinja takes for a tag")
    environment = jinja2.Environment(**{key: value for key, value in DELIMITERS.items() if key.endswith("string")})
    environment.parse(text)


def test_two_bakes_are_byte_identical(exported: Path, project: Path, tmp_path: Path) -> None:
    assert contents(template.bake(tmp_path, exported)) == contents(project)


def test_answers_are_kept_and_can_be_replayed(exported: Path, bake: Bake, tmp_path: Path) -> None:
    """`.cookiecutter.json` is a replay file: a project can be baked again from it without a question."""
    answers = {"project_name": 'Zoë\'s "Stack" \\ 100 %', "organisation": "$HOME #1", "ci": "gitlab"}
    project = bake(**answers)
    kept = json.loads((project / ".cookiecutter.json").read_text(encoding="utf-8"))["cookiecutter"]
    assert answers.items() <= kept.items()
    assert template.QUESTIONS.keys() <= kept.keys()
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        str(exported),
        "--replay-file",
        str(project / ".cookiecutter.json"),
    ]
    subprocess.run([*command, "-o", str(tmp_path)], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert contents(tmp_path / project.name) == contents(project)


def test_baking_again_over_a_project_keeps_what_its_owner_added(exported: Path, tmp_path: Path) -> None:
    project = template.bake(tmp_path, exported)
    before = contents(project)
    own = [project / folder / "own.txt" for folder in ("services/web", "ops", "config/dev/secrets", "docs/own")]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    command = [sys.executable, "-m", "cookiecutter", str(exported), "--no-input", "--overwrite-if-exists"]
    subprocess.run([*command, "-o", str(tmp_path)], check=True, capture_output=True)
    assert [path.read_text(encoding="utf-8") for path in own] == ["mine"] * len(own)
    for path in own:
        path.unlink()
    assert contents(project) == before


def test_an_existing_folder_is_refused_and_kept(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "acme-stack").mkdir()
    (tmp_path / "acme-stack" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputDirExistsException, match="already exists"):
        template.bake(tmp_path, exported)
    assert (tmp_path / "acme-stack" / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_scripts_can_be_executed(project: Path) -> None:
    scripts = {path for path in template.files(project) if (project / path).read_bytes().startswith(b"#!")}
    assert {path for path in scripts if not (project / path).stat().st_mode & 0o100} == set()


def test_scripts_are_executable_in_the_template_too() -> None:
    """So that nothing depends on the hook: git keeps the bit, Cookiecutter keeps the mode."""
    for path in template.sources():
        source = template.FOLDER / path
        if source.read_bytes().startswith(b"#!"):
            assert source.stat().st_mode & 0o100, f"chmod +x {path}"


def test_a_project_without_hooks_is_the_same_project(bake: Bake, project: Path) -> None:
    without = bake(hooks=False)
    assert contents(without) == contents(project)
    assert (project / ".git").is_dir()
    assert not (without / ".git").exists()


def test_no_secret_is_an_answer(project: Path, _cookiecutter_config: Path) -> None:
    """Cookiecutter writes every variable into its replay file: secrets are made where the stack runs, never here."""
    replay = json.loads((_cookiecutter_config / "replay" / "enterprise-stack.json").read_text(encoding="utf-8"))
    own = {"_template", "_output_dir", "_repo_dir", "_checkout"}
    assert replay["cookiecutter"].keys() - own == template.CONTEXT.keys() - {"__prompts__"}
    assert not [name for name in template.CONTEXT if re.search(r"password|secret|token|key$", name, re.IGNORECASE)]
    for folder in project.glob("config/*/secrets"):
        assert {path.name for path in folder.iterdir()} <= {".gitignore", ".gitkeep", "README.md"}
