"""One environment, several checkouts: all see the same releases, and nobody changes what nobody changed."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from .project import Project, docker

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def other(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone of the project in another folder: what git has, so without secrets and logs."""
    folder = tmp_path_factory.mktemp("clone") / "checkout"
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns(".state", ".git", "__pycache__"))
    for environment in ("dev", "staging", "prod"):
        shutil.rmtree(folder / "config" / environment / "secrets")
        (folder / "config" / environment / "secrets").mkdir()
    return Project(folder)


def standing(project: Project) -> set[tuple[str, ...]]:
    """Every container with its id and when it was started: equal means that none was touched."""
    line = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
    return {tuple(each.split()) for each in docker("inspect", "-f", line, *project.containers().values()).splitlines()}


def releases(project: Project) -> dict[str, Any]:
    return json.loads(project.invoke("releases", "--json").stdout)


def planned(project: Project) -> dict[str, list[str]]:
    """Causes by service of what a deploy would do to services."""
    document = json.loads(project.invoke("deploy", "--plan", "--json").stdout)
    services = set(docker("ps", "-a", "--format", '{{.Label "com.docker.compose.service"}}').split())
    return {each["subject"]: each["causes"] for each in document["operations"] if each["subject"] in services}


def edit(project: Project, path: str, text: str) -> None:
    """Change a file the way git does: another file takes its place."""
    file = project.folder / path
    new = file.with_name(f"{file.name}.new")
    new.write_text(file.read_text() + text)
    new.replace(file)


def test_a_clone_without_the_secrets_is_refused_before_it_makes_others(project: Project, other: Project) -> None:
    project.invoke("deploy")
    before = standing(project)
    for command in (("deploy", "--yes"), ("deploy", "--plan"), ("secret-init",)):
        said = other.invoke(*command, code=3).stderr
        assert str(project.folder) in said and "cp -a" in said and "COMPOSE_PROJECT_NAME" in said
    assert "dev cannot be deployed" in other.invoke("doctor", code=1).stdout
    assert list((other.folder / "config/dev/secrets").iterdir()) == []
    assert standing(project) == before


def test_a_clone_changes_nothing(project: Project, other: Project) -> None:
    before = standing(project)
    shutil.copytree(project.folder / "config/dev/secrets", other.folder / "config/dev/secrets", dirs_exist_ok=True)
    done = other.invoke("deploy", "--plan")
    assert "nothing to do" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "were started from" in line]
    assert str(project.folder) in line and "Keep that folder." in line
    assert "nothing to change" in other.invoke("deploy", "--yes").stdout
    assert standing(project) == before
    assert releases(other) == releases(project)
    assert [each["folder"] for each in releases(other)["releases"]] == [str(project.folder)]


def test_what_a_clone_deploys_the_first_one_sees(project: Project, other: Project) -> None:
    before = standing(project)
    edit(other, "services/web/web/pages.py", "# another version\n")
    other.invoke("deploy", "--yes")
    changed = {each[0] for each in standing(project) - before}
    assert changed == {f"/{name}" for name in project.containers() if "-web-" in name}
    assert planned(other) == {}
    assert planned(project) == {"web": ["its source changed"]}
    assert [each["number"] for each in releases(project)["releases"]] == [1, 2]


def test_a_clone_rolls_back(project: Project, other: Project) -> None:
    assert "is back on release 1" in other.invoke("rollback").stdout
    assert planned(project) == {}
    assert planned(other).keys() == {"web"}
    assert project.health()["healthy"] is True
    shutil.copy(project.folder / "services/web/web/pages.py", other.folder / "services/web/web/pages.py")
    assert planned(other) == {}


def test_nginx_is_replaced_where_a_reload_would_find_the_old_files(project: Project, other: Project) -> None:
    (old,) = [identity for name, identity in project.containers().items() if "-nginx-" in name]
    edit(other, "infrastructure/nginx/http.conf", "# another version\n")
    other.invoke("deploy", "--yes")
    (new,) = [identity for name, identity in project.containers().items() if "-nginx-" in name]
    assert new != old
    assert f"{other.folder}/infrastructure/nginx" in docker("inspect", "-f", "{{json .Mounts}}", new)
    assert planned(project) == {"nginx": ["infrastructure/nginx/http.conf changed"]}
    shutil.copy(other.folder / "infrastructure/nginx/http.conf", project.folder / "infrastructure/nginx/http.conf")
    assert planned(project) == {}
