"""PostgreSQL from one major version to the next where two nodes agree on a primary."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.images import build

from .failover import ENVIRONMENT, node, prepare, primary, roles, sql, synchronous
from .project import Project, docker, eventually
from .upgrades import NEW, OLD

BOTH = {"postgres-primary": "primary", "postgres-replica": "standby"}
ROWS = "SELECT count(*) || ' ' || md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM api.kept t"

pytestmark = [pytest.mark.story, pytest.mark.fault]


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Staging with automatic failover, one replica of each service, on the major before."""
    if reason := build.provide([OLD, NEW]).unavailable.get(OLD):
        pytest.skip(f"{OLD} cannot be had: {reason}")
    with Project.temporary(tmp_path_factory.mktemp("bake")) as project:
        prepare(project, replicas=1)
        project.set(ENVIRONMENT, POSTGRES_IMAGE=OLD)
        yield project


def version(project: Project) -> str:
    return sql(project, "SHOW server_version").partition(".")[0]


def well(project: Project) -> bool:
    return synchronous(project) and roles(project) == BOTH


def test_on_the_old_major(project: Project) -> None:
    project.invoke("deploy", "--env", ENVIRONMENT, "--yes")
    sql(project, "CREATE TABLE api.kept AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
    assert version(project) == "17"
    eventually(lambda: well(project), 60, "a synchronous standby")


def test_nodes_of_another_major_do_not_start(project: Project) -> None:
    project.set(ENVIRONMENT, POSTGRES_IMAGE=NEW)
    said = project.invoke("deploy", "--env", ENVIRONMENT, "--yes", code=3).stderr
    assert "postgres-primary, postgres-replica: " in said and "upgrade-database --env staging" in said
    # The image by itself, on the volume of each node.
    for service in BOTH:
        volume = f"{project.name(ENVIRONMENT)}_{service.replace('-', '_')}_data"
        line = ["docker", "run", "--rm", "--volume", f"{volume}:/var/lib/postgresql:ro", "--entrypoint", "bash", NEW]
        guard = (project.folder / "infrastructure/postgres/guard.sh").read_text()
        done = subprocess.run([*line, "-c", guard, "guard.sh", "node"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and "PostgreSQL 17 in 17/docker" in done.stderr
    entrypoint = docker("inspect", "--format", "{{json .Config.Entrypoint}}", node(project, "postgres-replica"))
    assert '"/etc/postgresql/guard.sh","node"' in entrypoint


def test_the_upgrade(project: Project) -> None:
    before = sql(project, ROWS)
    project.invoke("upgrade-database", "--env", ENVIRONMENT, "--yes")
    assert (version(project), sql(project, ROWS)) == ("18", before)
    eventually(lambda: well(project), 60, "a synchronous standby")
    assert "nothing to do" in project.invoke("deploy", "--env", ENVIRONMENT, "--plan").stdout
    assert project.health(ENVIRONMENT)["healthy"] is True
    sql(project, "CREATE TABLE api.written_on_18 ()")


def test_the_way_back_and_forth_again(project: Project) -> None:
    before = sql(project, ROWS)
    project.invoke("upgrade-database", "--back", "--env", ENVIRONMENT, "--yes")
    assert (version(project), sql(project, ROWS)) == ("17", before)
    assert sql(project, "SELECT to_regclass('api.written_on_18') IS NULL") == "t"
    eventually(lambda: well(project), 60, "a synchronous standby")
    # etcd knows a cluster of 18 by now, whose database was put aside.
    project.invoke("upgrade-database", "--image", NEW, "--env", ENVIRONMENT, "--yes")
    assert (version(project), sql(project, ROWS)) == ("18", before)
    eventually(lambda: well(project), 60, "a synchronous standby")
    assert primary(project) == "postgres-primary"
