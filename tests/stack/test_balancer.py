"""Who gets requests: a share of them for a trial, one container out of two that fails, and nobody to choose at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from .project import Project, docker, eventually, refused

pytestmark = pytest.mark.story

# A page that fails while the readiness check does not know: what ejection is for.
FAILING = """

@routes.get("/fails")
async def fail() -> Response:
    \"""Fail where somebody has asked this container to.\"""
    from pathlib import Path

    return Response(status_code=500 if Path("/tmp/fail").exists() else 200)
"""


@pytest.fixture(scope="module")
def project(dev_stack: Project) -> Project:
    """The shared stack with two containers of web."""
    dev_stack.set(WEB_REPLICAS="2")
    source = dev_stack.folder / "services/web/web/routes.py"
    source.write_text(source.read_text() + FAILING)
    dev_stack.invoke("deploy")
    return dev_stack


def titles(project: Project, count: int) -> Counter[str]:
    """How often each title came, of so many pages; what is no page of the site counts under its status."""
    with project.client() as client:
        pages = [client.get("/login") for _ in range(count)]
    found = ((re.search("<title>.* · (.*)</title>", page.text), page) for page in pages)
    return Counter(title[1] if title else f"{page.status_code}: {page.text[:200]}" for title, page in found)


def pool(project: Project) -> dict[str, str]:
    """What health says of the containers of web that get requests."""
    checks = project.health(code=None)["checks"]
    return next(each for each in checks if each["name"] == "pool" and each["target"] == "web")


def test_a_trial_gets_its_share_and_can_be_ended(project: Project) -> None:
    (before,) = titles(project, 5)
    project.set(SITE_NAME="Trial")
    project.invoke("deploy", "--canary", "20")
    shares = titles(project, 100)
    assert shares[before] + shares["Trial"] == 100
    assert 15 <= shares["Trial"] <= 25, shares
    assert "a canary is under way" in project.invoke("status").stdout
    refused(project.invoke("deploy", code=3), "A canary of web is under way in dev", "--promote", "--abort")
    refused(project.invoke("scale", "web", "3", code=3), "A canary of web is under way in dev")
    project.invoke("deploy", "--abort")
    assert titles(project, 20) == {before: 20}
    assert project.health()["healthy"] is True


def test_a_trial_that_was_convincing_gets_everything(project: Project) -> None:
    refused(project.invoke("deploy", "--promote", code=3), "No canary is under way in dev")
    project.invoke("deploy", "--canary", "10")
    project.invoke("deploy", "--promote")
    assert titles(project, 20) == {"Trial": 20}
    assert "nothing to do" in project.invoke("deploy", "--plan").stdout
    assert len([name for name in project.containers() if "-web-" in name]) == 2


def test_one_that_fails_although_it_is_ready_is_taken_out_and_named(project: Project) -> None:
    victim, *_ = sorted(name for name in project.containers() if "-web-" in name)
    # Right after the end of a trial, which is a reload of HAProxy: nothing goes to its former process any more.
    docker("exec", victim, "touch", "/tmp/fail")
    with project.client() as client:
        # Both are asked in turn, so fifty have more than five in a row for each in less than a second.
        first = Counter(client.get("/fails").status_code for _ in range(50))
        then = Counter(client.get("/fails").status_code for _ in range(50))
    assert 0 < first[500] < 25, first
    assert then == {200: 50}
    short = victim.removeprefix(f"{project.name()}-")

    def named(words: str, ask: Callable[[], str]) -> bool:
        # It is back after ten good seconds, which a command may take on a busy machine; the next errors take it out.
        with project.client() as client:
            for _ in range(50):
                client.get("/fails")
        return words in ask()

    eventually(lambda: named(f"{short} is taken out: it answers errors", lambda: pool(project)["detail"]), 60, "health")
    eventually(lambda: named(f"{short} is taken out", lambda: project.invoke("status").stdout), 60, "status names it")
    docker("exec", victim, "rm", "/tmp/fail")
    eventually(lambda: pool(project)["detail"].startswith("2 of 2"), 30, "it is chosen again")


def test_without_the_balancer_pages_are_served_and_a_deploy_brings_it_back(project: Project) -> None:
    docker("kill", next(name for name in project.containers() if "-haproxy-" in name))
    served = titles(project, 20)
    nginx = next(name for name in project.containers() if "-nginx-" in name)
    # A request that waits for HAProxy's dead address when nginx hears that the name is gone may get a 502: nginx gives
    # up on a request whose servers change under it.
    assert served["Trial"] >= 18, docker("logs", "--tail=60", nginx)
    assert titles(project, 20) == {"Trial": 20}
    assert re.search("start +haproxy", project.invoke("deploy", "--plan").stdout)
    project.invoke("deploy")
    assert titles(project, 20) == {"Trial": 20}
    eventually(lambda: project.health()["healthy"], 30, "all is well again")
