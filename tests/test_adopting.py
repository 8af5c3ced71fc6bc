"""docs/your-own-services.md, as its reader would follow it: what needs no engine. The rest is in tests/stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import compose, documents, template

pytestmark = pytest.mark.skipif(compose.unavailable() is not None, reason=str(compose.unavailable()))

FILE = "docker-compose.services.yml"
# Those that do something on the engine.
ON_ENGINE = ("deploy", "scale")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose owner follows the document."""
    return template.bake(tmp_path_factory.mktemp("reader"))


def run(project: Path, command: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Type a command in the project's folder."""
    program = f"{sys.executable} -m invoke"
    line = re.sub(r"\binvoke\b", program, command, count=1)
    done = subprocess.run(["bash", "-c", line], cwd=project, capture_output=True, text=True, env=os.environ)
    assert code is None or done.returncode == code, f"$ {command}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_every_command_of_the_document_works_in_its_order(reader: Path) -> None:
    settings = {path: path.read_text(encoding="utf-8") for path in reader.glob("config/*/.env")}
    before = (reader / FILE).read_text(encoding="utf-8")
    typed = documents.commands(reader / "docs/your-own-services.md")
    assert len(typed) > 20
    added = set()
    for command in typed:
        if any(command.startswith(f"invoke {name}") for name in ON_ENGINE):
            continue
        run(reader, command)
        if match := re.match(r"invoke service-add (\S+)", command):
            added.add(match[1])
            assert re.search(rf"^  {match[1]}:$", (reader / FILE).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(added) > 8
    # Whatever was added was removed again, and nothing else with it.
    assert (reader / FILE).read_text(encoding="utf-8") == before
    assert {path: path.read_text(encoding="utf-8") for path in reader.glob("config/*/.env")} == settings


def test_every_section_says_how_to_remove_what_it_adds(project: Path) -> None:
    text = (project / "docs/your-own-services.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", text, re.MULTILINE))
    assert len(sections) > 10
    assert {name for name, body in sections.items() if "**Remove it.**" not in body} == {
        *("Monitoring", "A part that you do not need"),
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("service-add auth-service --from go", "There is a service auth-service already"),
        ("service-add api --from go", "services/api exists already"),
        ("service-add postgres-primary --from go", "docker-compose.postgres.yml has one of that name"),
        ("service-add other --from go --route /api", "has the same one, so give one of them another"),
        ("service-add shop", "A service cannot be made from"),
        ("service-remove nginx --yes", "nginx is a part of the stack"),
        ("service-remove nothing --yes", "There is no service nothing"),
        ("service-remove migrate --yes", "migrate cannot be removed: api depends on it"),
        ("environment-add dev --from staging", "config/dev exists already"),
        ("environment-add qa --from nothing", 'There is no environment "nothing"'),
    ],
)
def test_what_is_refused_changes_nothing(project: Path, command: str, words: str) -> None:
    before = snapshot(project)
    done = run(project, f"invoke {command}", code=2)
    assert words in re.sub(r"\s+", " ", done.stderr)
    assert snapshot(project) == before


def snapshot(project: Path) -> dict[str, str]:
    folders = [*(project / "services").rglob("*"), *(project / "config").rglob("*"), project / FILE]
    return {str(path): path.read_text(encoding="utf-8") for path in folders if path.is_file() and path.suffix != ".pyc"}


def test_somebody_elses_way_of_writing_is_kept(tmp_path: Path) -> None:
    project = template.bake(tmp_path)
    file = project / FILE
    text = file.read_text(encoding="utf-8").replace("  web:\n", "  # our face\n\n  web:   # do not touch\n", 1)
    file.write_text(text, encoding="utf-8")
    run(project, "invoke service-add shop --from node --route /shop --database --queue --volume /data")
    assert "  # our face\n\n  web:   # do not touch\n" in file.read_text(encoding="utf-8")
    run(project, "invoke service-remove shop --yes")
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("options", ["--route /price-list --schema", "", "--job"])
def test_a_new_python_service_passes_its_tests_and_the_linters(tmp_path: Path, options: str) -> None:
    project = template.bake(tmp_path)
    run(project, f"invoke service-add price-list --from python {options}")
    folder = project / "services/price_list"
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for command in (
        ("pytest", "-q", "-p", "no:cacheprovider"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy", f"--cache-dir={tmp_path}/mypy"),
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
