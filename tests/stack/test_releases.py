"""A release, the way back from it, and the site closed for maintenance meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, sync_playwright

from .project import Project, docker, eventually

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def project(dev_stack: Project) -> Project:
    """The shared stack: other modules may have made releases before."""
    return dev_stack


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What one chapter leaves for the next."""
    return {}


def releases(project: Project) -> dict[str, Any]:
    return json.loads(project.invoke("releases", "--json").stdout)


def images(project: Project) -> dict[str, str]:
    """Image id by service of what serves."""
    names = ("web", "api", "auth-service", "notification-service")
    found = [
        name for name in project.containers() if re.sub(r"-\d+$", "", name.removeprefix(f"{project.name()}-")) in names
    ]
    lines = docker("inspect", "--format", "{{.Name}} {{.Image}}", *found).splitlines()
    return {
        re.sub(r"-\d+$", "", line.split()[0].removeprefix(f"/{project.name()}-")): line.split()[1] for line in lines
    }


def edit(project: Project) -> None:
    with (project.folder / "services/web/web/pages.py").open("a") as file:
        file.write("# another version\n")


def test_two_releases(project: Project, kept: dict[str, Any]) -> None:
    before = releases(project)
    number, first = before["current"], images(project)
    edit(project)
    project.set(LOG_LEVEL="info")
    project.invoke("deploy")
    assert images(project)["web"] != first["web"]
    assert images(project)["api"] == first["api"]
    found = releases(project)
    assert (found["current"], found["kept"][:2]) == (number + 1, [number + 1, number])
    assert len(found["releases"]) == len(before["releases"]) + 1
    assert [each["result"] for each in found["releases"][-2:]] == ["deployed", "deployed"]
    assert found["releases"][-1]["changes"]["web"] == "LOG_LEVEL: debug → info and 1 more"
    kept.update(images=first, release=number)


def test_back_to_the_first(project: Project, kept: dict[str, Any]) -> None:
    web = docker("ps", "-q", "-f", f"label=com.docker.compose.project={project.name()}", "-f", "name=-web-")
    said = project.invoke("rollback").stdout
    assert f"dev is back on release {kept['release']}" in said
    assert images(project) == kept["images"]
    (new,) = [name for name in project.containers() if "-web-" in name]
    assert "LOG_LEVEL=debug" in docker("inspect", "--format", "{{.Config.Env}}", new)
    assert web not in docker("ps", "-aq").split()
    assert releases(project)["releases"][-1]["command"] == f"rollback to {kept['release']}"
    assert project.health()["healthy"] is True


def test_scaling_afterwards_brings_more_of_what_runs(project: Project, kept: dict[str, Any]) -> None:
    project.invoke("scale", "web", "2")
    both = [name for name in project.containers() if "-web-" in name]
    assert len(both) == 2
    assert {docker("inspect", "--format", "{{.Image}}", name) for name in both} == {kept["images"]["web"]}
    assert all("LOG_LEVEL=debug" in docker("inspect", "--format", "{{.Config.Env}}", name) for name in both)
    project.invoke("scale", "web", "1")


def test_what_cannot_be_gone_back_to(project: Project) -> None:
    assert "Available releases: " in project.invoke("rollback", "--to", "99", code=2).stderr
    assert "not the number of a release" in project.invoke("rollback", "--to", "x", code=2).stderr


def test_the_files_still_say_what_came_after(project: Project, kept: dict[str, Any]) -> None:
    plan = json.loads(project.invoke("deploy", "--plan", "--json").stdout)
    assert {each["subject"] for each in plan["operations"]} >= {"web", "api", "auth-service", "notification-service"}
    project.invoke("deploy")
    assert images(project)["web"] != kept["images"]["web"]
    assert "nothing to do" in project.invoke("deploy", "--plan").stdout


def test_maintenance(project: Project, chromium: str, screenshots: Path) -> None:
    nginx = project.containers()
    project.invoke("maintenance", "on")
    with project.client() as client:
        page, document = client.get("/"), client.get("/api/v1/items")
        assert (page.status_code, page.headers["retry-after"], page.headers["cache-control"]) == (
            503,
            "120",
            "no-store",
        )
        assert "Back soon" in page.text and page.headers["content-type"] == "text/html"
        assert document.status_code == 503 and "maintenance" in document.json()["detail"]
        assert client.post("/login", data={"email": "a"}).status_code == 503
        assert client.get("/health").status_code == 200
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(ignore_https_errors=True, viewport={"width": 900, "height": 600})
        for _ in range(3):
            # Chromium gives up what it is loading when an interface of the machine comes or goes: a container beside.
            with contextlib.suppress(Error):
                shown.goto(project.url())
                break
        assert shown.title() == "Back soon"
        shown.screenshot(path=screenshots / "maintenance.png")
        browser.close()
    checks = {each["name"]: each["status"] for each in project.health()["checks"]}
    assert checks["maintenance"] == "warn"
    assert "maintenance is on since" in project.invoke("status").stdout
    assert "nothing to do" in project.invoke("deploy", "--plan").stdout
    project.invoke("maintenance", "off")
    with project.client() as client:
        assert client.get("/login").status_code == 200
    assert project.containers() == nginx
    assert "neither on, off" in project.invoke("maintenance", "maybe", code=2).stderr


@pytest.mark.fault
def test_maintenance_survives_a_restart_of_nginx(project: Project) -> None:
    (nginx,) = [name for name in project.containers() if "-nginx-" in name]
    project.invoke("maintenance", "on")
    docker("restart", nginx)
    healthy = ("inspect", "--format", "{{.State.Health.Status}}", nginx)
    eventually(lambda: docker(*healthy) == "healthy", 30, "nginx is back")
    with project.client() as client:
        assert client.get("/").status_code == 503
    project.invoke("maintenance", "off")


@pytest.mark.fault
def test_a_stopped_stack_opens_again(project: Project) -> None:
    project.invoke("stop")
    project.invoke("deploy")
    with project.client() as client:
        assert client.get("/login").status_code == 200
    assert project.health()["healthy"] is True
