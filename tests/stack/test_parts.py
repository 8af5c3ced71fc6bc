"""The stack without some of its parts: each leaves by one setting, and every command goes on working."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project, docker

# A site of nobody's: a page from a volume, in an image of others.
HELLO = """\
services:
  hello:
    extends: {file: infrastructure/service.yml, service: hardened}
    image: ${PYTHON_IMAGE}
    command: [python, -m, http.server, --directory, /pages, "8000"]
    init: true
    user: "10001:10001"
    tmpfs: ["/tmp:mode=1777,size=16m"]
    labels:
      ops.port: 8000
      ops.route: /
      ops.ready: /
      ops.rollout: rolling
      ops.backup: pages
    volumes: ["pages:/pages"]
    networks:
      serving: {aliases: [hello.serving]}
      backend:
    deploy:
      replicas: ${HELLO_REPLICAS:-1}
      resources: {limits: {cpus: "0.5", memory: 64m, pids: 64}}
volumes:
  pages:
"""
PARTS = ("postgres", "redis", "rabbitmq")
COMBINATIONS = [*itertools.product((False, True), repeat=len(PARTS))]
# In every run: nothing but the edge, and the database alone.
ALWAYS = {(False, False, False), (True, False, False)}


def _name(parts: tuple[bool, ...]) -> str:
    return "+".join(name for name, there in zip(PARTS, parts, strict=True) if there) or "none"


@pytest.fixture(
    params=[
        pytest.param(each, id=_name(each), marks=() if each in ALWAYS else pytest.mark.fault) for each in COMBINATIONS
    ]
)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project with some of the parts and one small service."""
    with Project.temporary(tmp_path) as project:
        (project.folder / "docker-compose.services.yml").write_text(HELLO)
        files = [f"docker-compose.{name}.yml" for name, there in zip(PARTS, request.param, strict=True) if there]
        project.set(COMPOSE_FILE=":".join(["docker-compose.yml", *files, "docker-compose.services.yml"]))
        yield project


def page(project: Project) -> str:
    """What the site answers."""
    with project.client() as client:
        return client.get("/index.html").text


def write(project: Project, words: str) -> None:
    """Put a page into the volume."""
    container = next(name for name in project.containers() if "-hello-" in name)
    docker("exec", "--user", "0", container, "sh", "-c", f"echo {words} > /pages/index.html")


def test_every_command_works_without_the_parts_that_left(project: Project) -> None:
    names = {
        name.removeprefix("docker-compose.").removesuffix(".yml")
        for name in project.settings()["COMPOSE_FILE"].split(":")
    }
    project.invoke("deploy")
    running = {name for name in PARTS if any(f"-{name}-" in container for container in project.containers())}
    assert running == names & {*PARTS}
    report = project.health()
    assert report["healthy"] is True
    assert "nothing to do" in project.invoke("deploy", "--plan").stdout
    project.invoke("doctor")
    project.invoke("status")

    write(project, "before")
    archive = json.loads(project.invoke("backup", "--json").stdout)["path"]
    write(project, "after")
    assert page(project) == "after\n"
    project.invoke("restore", archive, "--yes")
    assert page(project) == "before\n"

    project.invoke("scale", "hello", "2")
    assert len([name for name in project.containers() if "-hello-" in name]) == 2
    assert project.health()["healthy"] is True
    project.invoke("down", "--volumes", "--yes")
    assert (project.containers(), project.networks(), project.volumes()) == ({}, set(), set())
