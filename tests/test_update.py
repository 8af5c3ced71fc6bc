"""A project made by one version of the template takes the next one: `cruft create`, work on it, `cruft update`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import template

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
cruft_cli = pytest.importorskip("cruft", reason="cruft is not installed: nox -s update brings it")

IDENTITY = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def cruft(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cruft", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The template as a repository with one version in it."""
    folder = template.export(tmp_path / "enterprise-stack")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "first version")
    return folder


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Path:
    """A project of the first version, committed by its owner."""
    output = tmp_path / "work"
    output.mkdir()
    done = cruft(output, "create", "--no-input", str(repository))
    assert done.returncode == 0, done.stdout + done.stderr
    commit(output / "acme-stack", "start")
    return output / "acme-stack"


def test_a_project_takes_the_next_version(repository: Path, project: Path) -> None:
    # The owner works: other settings, code of their own, secrets on this machine, a stack that has left files.
    settings = project / "config" / "prod" / ".env"
    edit(settings, "\nWEB_REPLICAS=3\n", "\nWEB_REPLICAS=7\n")
    own = project / "services" / "web" / "own.py"
    own.write_text("OWN = True\n", encoding="utf-8")
    commit(project, "our work")
    secret = project / "config" / "prod" / "secrets" / "JWT_SECRET"
    secret.write_text("b" * 64, encoding="utf-8")

    # The template moves on: a line in a copied file and in a rendered one, a new file, one less.
    source = repository / template.FOLDER.name
    with (source / "docker-compose.yml").open("a", encoding="utf-8") as file:
        file.write("# version two\n")
    with (source / "config" / "prod" / ".env").open("a", encoding="utf-8") as file:
        file.write("NEW_SETTING=<< cookiecutter.project >>\n")
    (source / "ops" / "news.py").write_text('"""New in version two."""\n', encoding="utf-8")
    removed = source / "docs" / "production-checklist.md"
    removed.unlink()
    commit(repository, "second version")

    assert cruft(project, "check").returncode == 1
    done = cruft(project, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(project.rglob("*.rej")) == []
    assert (project / "docker-compose.yml").read_text(encoding="utf-8").endswith("# version two\n")
    text = settings.read_text(encoding="utf-8")
    assert "\nWEB_REPLICAS=7\n" in text and text.endswith("\nNEW_SETTING=acme-stack\n")
    assert (project / "ops" / "news.py").is_file()
    assert not (project / "docs" / removed.name).exists()
    assert own.is_file()
    assert secret.read_text(encoding="utf-8") == "b" * 64
    commit(project, "second version")
    assert cruft(project, "check").returncode == 0


def test_a_project_with_services_of_its_own_takes_the_next_version(repository: Path, project: Path) -> None:
    """Three services were added, an example was changed and another one removed; the template changes all around."""
    compose = project / "docker-compose.services.yml"
    for name, route in (("shop", "/shop"), ("prices", "/prices"), ("notes", "/notes")):
        text = compose.read_text(encoding="utf-8")
        entry = f"""
  {name}:
    extends: {{file: infrastructure/service.yml, service: hardened}}
    image: ${{IMAGE_PREFIX}}/{name}:${{IMAGE_TAG}}
    labels: {{ops.port: 3000, ops.route: {route}/}}

volumes:
"""
        assert text.count("\nvolumes:\n") == 1
        compose.write_text(text.replace("\nvolumes:\n", entry), encoding="utf-8")
        (project / "services" / name).mkdir()
        (project / "services" / name / "main.js").write_text(f"// {name}\n", encoding="utf-8")
    edit(project / "services/web/web/app.py", '"""The web service: pages for people."""', '"""Ours."""')
    shutil.rmtree(project / "services/notification")
    commit(project, "our services")
    mine = {path: path.read_bytes() for path in [compose, *(project / "services").rglob("*.js")]}

    source = repository / template.FOLDER.name
    for name in ("docker-compose.services.yml", "services/web/web/app.py", "services/notification/notification/app.py"):
        path = source / name
        path.write_text(f"# version two\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    for name in ("infrastructure/service.yml", "docker-compose.monitoring.yml", "services/common/stack/app.py"):
        with (source / name).open("a", encoding="utf-8") as file:
            file.write("# version two\n")
    commit(repository, "second version")

    done = cruft(project, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(project.rglob("*.rej")) == []
    assert {path: path.read_bytes() for path in mine} == mine
    assert (project / "services/web/web/app.py").read_text(encoding="utf-8").startswith('"""Ours."""')
    assert not (project / "services/notification").exists()
    for name in ("infrastructure/service.yml", "docker-compose.monitoring.yml", "services/common/stack/app.py"):
        assert (project / name).read_text(encoding="utf-8").endswith("# version two\n")


def test_a_question_that_is_new_takes_a_default_that_changes_nothing(tmp_path: Path) -> None:
    """A project that was made before the license was asked for."""
    repository = template.export(tmp_path / "enterprise-stack")
    questions = repository / "cookiecutter.json"
    license_file = next((repository / template.FOLDER.name).glob("*LICENSE*"))
    kept = {path: path.read_text(encoding="utf-8") for path in (questions, license_file)}
    before = json.loads(kept[questions])
    del before["license"]
    questions.write_text(json.dumps(before), encoding="utf-8")
    license_file.unlink()
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, "before")
    done = cruft(tmp_path, "create", "--no-input", str(repository))
    assert done.returncode == 0, done.stdout + done.stderr
    project = tmp_path / "acme-stack"
    commit(project, "start")
    for path, text in kept.items():
        path.write_text(text, encoding="utf-8")
    commit(repository, "ask for the license")
    done = cruft(project, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    changed = {line[3:] for line in git(project, "status", "--porcelain").splitlines()}
    assert changed == {".cookiecutter.json", ".cruft.json"}


def test_the_question_for_the_services_takes_a_default_that_changes_nothing(tmp_path: Path) -> None:
    """A project that was made before it was asked has the examples, and keeps them."""
    repository = template.export(tmp_path / "enterprise-stack")
    asking = [repository / "cookiecutter.json", repository / template.FOLDER.name / "README.md"]
    asking += [*(repository / "hooks").iterdir()]
    kept = {path: path.read_text(encoding="utf-8") for path in asking}
    before = json.loads(kept[asking[0]])
    for question in ("services", *template.OWN_IMAGE):
        del before[question]
    asking[0].write_text(json.dumps(before), encoding="utf-8")
    readme = kept[asking[1]].replace("cookiecutter.services", '"example"')
    readme = readme.replace("cookiecutter.service_image", '"none"')
    asking[1].write_text(readme, encoding="utf-8")
    shutil.rmtree(repository / "hooks")
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, "before")
    done = cruft(tmp_path, "create", "--no-input", str(repository))
    assert done.returncode == 0, done.stdout + done.stderr
    project = tmp_path / "acme-stack"
    git(project, "init", "--quiet", "--initial-branch=main")
    commit(project, "start")
    (repository / "hooks").mkdir()
    for path, text in kept.items():
        path.write_text(text, encoding="utf-8")
    commit(repository, "ask for the services")
    done = cruft(project, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    changed = {line[3:] for line in git(project, "status", "--porcelain").splitlines()}
    assert changed == {".cookiecutter.json", ".cruft.json"}


def test_a_project_without_the_examples_takes_the_next_version(repository: Path, tmp_path: Path) -> None:
    """What changes in the examples, or in what the service hello was made of, is nothing to it."""
    extra = ["--extra-context", '{"services": "hello"}']
    done = cruft(tmp_path, "create", "--no-input", *extra, str(repository))
    assert done.returncode == 0, done.stdout + done.stderr
    project = tmp_path / "acme-stack"
    edit(project / "services/hello/hello/app.py", "hello works", "we are here")
    commit(project, "start")

    source = repository / template.FOLDER.name
    for name in (
        "services/api/api/app.py",
        "scripts/skeletons/python/newservice/app.py",
        "services/common/stack/app.py",
    ):
        with (source / name).open("a", encoding="utf-8") as file:
            file.write("# version two\n")
    edit(source / "docker-compose.services.yml", "  api:\n", "  # version two\n  api:\n")
    for path in source.glob("config/*/.env"):
        edit(path, "\nAPI_URL=", "\nAPI_URL=http://elsewhere")
        with path.open("a", encoding="utf-8") as file:
            file.write("NEW_SETTING=1\n")
    commit(repository, "second version")

    done = cruft(project, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(project.rglob("*.rej")) == []
    changed = {line[3:] for line in git(project, "status", "--porcelain").splitlines()}
    settings = {f"config/{environment}/.env" for environment in template.ENVIRONMENTS}
    assert changed == {
        *(".cruft.json", "services/common/stack/app.py", "scripts/skeletons/python/newservice/app.py"),
        *settings,
    }
    for name in settings:
        text = (project / name).read_text(encoding="utf-8")
        assert text.endswith("\nNEW_SETTING=1\n") and "API_URL" not in text


def test_nothing_new_is_nothing_to_do(project: Path) -> None:
    assert cruft(project, "check").returncode == 0
    assert cruft(project, "update", "--skip-apply-ask").returncode == 0
    assert git(project, "status", "--porcelain") == ""


def test_no_secret_reaches_git(project: Path) -> None:
    """Neither what Cookiecutter and cruft keep of the answers, nor what appears in the folders later."""
    kept = (project / ".cruft.json").read_text(encoding="utf-8").lower()
    assert not [word for word in ("password", "token", "jwt") if word in kept]
    for environment in template.ENVIRONMENTS:
        (project / "config" / environment / "secrets" / "POSTGRES_PASSWORD").write_text("x" * 43, encoding="utf-8")
    assert git(project, "status", "--porcelain", "--untracked-files=all") == ""


def test_the_folder_for_cruft_is_still_needed(repository: Path, tmp_path: Path) -> None:
    """The day this fails, cruft has learnt to read delimiters: delete the folder, and this test."""
    shutil.rmtree(repository / "{{cookiecutter.cruft}}")
    commit(repository, "without")
    assert cruft(tmp_path, "create", "--no-input", str(repository)).returncode != 0
