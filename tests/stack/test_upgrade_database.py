"""PostgreSQL from one major version to the next, and back: refused by accident, done on purpose, nothing lost."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.images import build

from .clients import container
from .project import Project, docker, eventually
from .upgrades import NEW, OLD, digests, psql, version

EMAIL = "ada@example.com"

pytestmark = [pytest.mark.story, pytest.mark.fault]


@pytest.fixture(scope="module")
def both_majors(engine: None) -> None:
    """An image of the major before, beside the one that the project declares."""
    if reason := build.provide([OLD, NEW]).unavailable.get(OLD):
        pytest.skip(f"{OLD} cannot be had: {reason}")


@pytest.fixture(scope="module")
def project(both_majors: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project of this module's own."""
    with Project.temporary(tmp_path_factory.mktemp("bake")) as project:
        yield project


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What one chapter leaves for the next."""
    return {}


def titles(project: Project) -> set[str]:
    with project.client() as client:
        project.sign_in(client, EMAIL)
        answer = client.get("/api/v1/items", params={"limit": 100})
        assert answer.status_code == 200, answer.text
        return {item["title"] for item in answer.json()["items"]}


def write(project: Project, *titles: str) -> None:
    with project.client() as client:
        project.sign_in(client, EMAIL)
        for title in titles:
            assert client.post("/api/v1/items", json={"title": title}).status_code == 201


def folders(project: Project, service: str = "primary") -> set[str]:
    """Databases in a volume, by the folder they are in."""
    volume = f"{project.name()}_postgres_{service}_data"
    script = "cd /v; ls -d */* .[a-z]* 2> /dev/null || :"
    return set(docker("run", "--rm", "-v", f"{volume}:/v:ro", "--entrypoint", "sh", OLD, "-c", script).split())


def streams(project: Project) -> bool:
    query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
    return psql(project, query) == "1" and version(project, "postgres-replica") == version(project)


def test_a_stack_on_the_old_major(project: Project) -> None:
    project.set(POSTGRES_IMAGE=OLD)
    project.invoke("deploy")
    write(project, *(f"note {number}" for number in range(30)))
    # A person of the owner's own making, and a database beside: neither is in a backup.
    psql(project, "CREATE ROLE reporting LOGIN PASSWORD 'of its own'; GRANT USAGE ON SCHEMA api TO reporting")
    psql(project, "CREATE DATABASE archive")
    assert version(project) == "17"
    eventually(lambda: len(project.mails()) == 30, 60, "a mail for every note")


def test_a_deploy_of_the_new_major_is_refused_and_touches_nothing(project: Project) -> None:
    before = project.containers()
    project.set(POSTGRES_IMAGE=NEW)
    for arguments in (("deploy", "--plan"), ("deploy", "--yes")):
        said = project.invoke(*arguments, code=3).stderr
        assert "holds a database of PostgreSQL 17 in 17/docker; this image is PostgreSQL 18" in said
        assert "invoke upgrade-database --env dev" in said
    assert "cannot be deployed: database" in project.invoke("doctor", code=1).stdout
    assert project.containers() == before
    assert titles(project) == {f"note {number}" for number in range(30)}


def docker_logs(name: str) -> str:
    return subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True).stderr


def test_a_load_that_fails_leaves_the_old_database_serving(project: Project) -> None:
    # With a column that 18 does not know any more.
    project.set(POSTGRES_IMAGE=OLD)
    psql(project, "CREATE VIEW public.written AS SELECT wal_write FROM pg_stat_wal")
    before = project.containers()
    failed = project.invoke("upgrade-database", "--image", NEW, "--yes", code=1)
    assert "failed while loading the new database" in failed.stderr
    assert "The old database is in its place, and dev runs on it." in failed.stderr
    assert version(project) == "17" and folders(project) == {"17/docker"}
    assert project.containers() == before
    assert project.settings()["POSTGRES_IMAGE"] == OLD
    write(project, "after a failed upgrade")
    psql(project, "DROP VIEW public.written")


def test_killed_while_it_loads_it_is_put_right_by_the_next(project: Project) -> None:
    loading = "loading the new database"
    project.interrupted("upgrade-database", "--image", NEW, "--yes", at=loading, how=signal.SIGKILL)
    with project.client() as client:
        assert client.get("/").status_code == 503
    back = project.invoke("upgrade-database", "--back")
    assert "dev is back on PostgreSQL 17" in back.stdout
    assert folders(project) == {"17/docker"}
    assert f"{project.name()}-upgrade-database" not in docker("ps", "-a", "--format", "{{.Names}}").split()
    write(project, "after a killed upgrade")
    assert project.health()["healthy"] is True


def test_a_start_by_hand_is_refused_too(project: Project, kept: dict[str, Any]) -> None:
    kept["titles"] = titles(project)
    eventually(lambda: len(project.mails()) == len(kept["titles"]), 60, "a mail for every note")
    kept["rows"] = digests(project)
    project.set(POSTGRES_IMAGE=NEW)
    compose = ["docker", "compose", "--env-file", "config/dev/.env", "up", "--detach", "--no-deps", "postgres-primary"]
    subprocess.run(compose, cwd=project.folder, check=True, capture_output=True)
    said = eventually(lambda: docker_logs(container(project, "postgres-primary")), 20, "a word of the guard")
    assert "holds a database of PostgreSQL 17 in 17/docker; this image is PostgreSQL 18" in said
    assert "invoke upgrade-database --env dev" in said
    assert folders(project) == {"17/docker"}


def test_the_upgrade(project: Project, kept: dict[str, Any]) -> None:
    # From where the last chapter left it: the old container is gone, the new one refuses.
    backups = len(list((project.folder / "backups/dev").glob("*.tar")))
    said = project.invoke("upgrade-database", "--yes").stdout
    assert "dev runs PostgreSQL 18" in said and "the site was closed for" in said
    assert "kept        /var/lib/postgresql/17/docker" in said
    assert (version(project), version(project, "postgres-replica")) == ("18", "18")
    assert digests(project) == kept["rows"]
    assert psql(project, "SELECT has_schema_privilege('reporting', 'api', 'USAGE')") == "t"
    assert psql(project, "SELECT count(*) FROM pg_database WHERE datname = 'archive'") == "1"
    assert psql(project, "SELECT count(*) FROM pg_stats WHERE schemaname = 'api'") != "0"
    eventually(lambda: streams(project), 20, "the standby streams")
    assert folders(project) == {"17/docker", "18/docker", "18/upgraded-from"}
    assert len(list((project.folder / "backups/dev").glob("*.tar"))) == backups + 1
    assert "nothing to change" in project.invoke("deploy").stdout
    write(project, "written on 18")
    assert project.health()["healthy"] is True


def test_a_downgrade_is_refused(project: Project) -> None:
    project.set(POSTGRES_IMAGE=OLD)
    for command in ("deploy", "upgrade-database"):
        assert "PostgreSQL 18" in project.invoke(command, "--yes", code=3).stderr
    project.set(POSTGRES_IMAGE=NEW)


def test_the_way_back(project: Project, kept: dict[str, Any]) -> None:
    assert "there is no terminal" in project.invoke("upgrade-database", "--back", code=2).stderr
    project.invoke("upgrade-database", "--back", "--yes")
    assert (version(project), version(project, "postgres-replica")) == ("17", "17")
    assert project.settings()["POSTGRES_IMAGE"] == OLD
    assert titles(project) == kept["titles"]
    eventually(lambda: streams(project), 20, "the standby streams")
    assert "nothing to change" in project.invoke("deploy").stdout
    assert project.health()["healthy"] is True


def test_tidy(project: Project) -> None:
    (aside,) = folders(project) - {"17/docker"}
    assert aside == ".aside"
    assert "there is no terminal" in project.invoke("upgrade-database", "--tidy", code=2).stderr
    project.invoke("upgrade-database", "--tidy", "--yes")
    assert folders(project) == {"17/docker"} and folders(project, "replica") == {"17/docker"}
    assert "no older database is kept" in project.invoke("upgrade-database", "--back", "--yes", code=3).stderr
    assert "nothing to upgrade" in project.invoke("upgrade-database").stdout
    assert project.health()["healthy"] is True
