"""Rollouts that nobody notices: deploys under load, releases that are no good, deployers that are killed.

tests/bench/rollouts.py measures. The tests share one stack, in this order.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.load import ledger
from tests.load.run import Load

from .project import Project, eventually
from .rollouts import (
    BAD_RELEASES,
    DEAF,
    ENVIRONMENT,
    KILLS,
    ROLLING,
    Bad,
    Kill,
    containers,
    deploy,
    edited,
    killed,
    prepare,
    serving,
    tidy,
    unchosen,
    version,
)

pytestmark = [pytest.mark.story, pytest.mark.alone]

# In the ladder: a release that fails its proof, and a deployer that is killed after the switch.
SHORT = {"smoke request 500"}
SHORT_KILLS = {"draining"}

# Requests a second. Two cores that also send the load, build and start containers have no more to spare in every run;
# tests/bench/rollouts.py sends a hundred.
RATE = 50
# While something else is watched than how many get through.
EASY = 30


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with the waits that protect requests: here they are what is tested."""
    with Project.temporary(tmp_path_factory.mktemp("bake"), quick=False) as project:
        yield project


def told(cases: Sequence[Bad | Kill], short: set[str]) -> list[Any]:
    """Parameters of a test; those that are not in `short` are faults."""
    return [pytest.param(each, marks=() if str(each) in short else pytest.mark.fault, id=str(each)) for each in cases]


def assert_nothing_lost(load: Load) -> None:
    assert not load.report.all.lost, str(load.report)
    assert load.ledger.exact, str(load.ledger)


def assert_clean(project: Project) -> None:
    assert tidy(project) == []


def test_first_deploy(project: Project) -> None:
    prepare(project)
    # Both versions are built before the load, and leave their images behind: no build takes the processor meanwhile.
    for name in ("a", "b"):
        version(project, name)
        deploy(project)
    assert_clean(project)


def test_two_rolling_deploys_lose_nothing(project: Project) -> None:
    """Over HTTP/1.1 and HTTP/2, on kept and on fresh connections, with a round trip of 50 ms."""
    before = serving(project)
    with Load(project, rate=RATE, transports=["kept", "kept", "fresh", "fresh", "http2"]) as load:
        time.sleep(10)
        for name in ("a", "b"):
            load.enter(f"deploy of {name}")
            version(project, name)
            deploy(project)
        load.enter("after")
        time.sleep(3)
    assert_nothing_lost(load)
    after = serving(project)
    assert all(before[service].isdisjoint(after[service]) for service in ROLLING), "every container was replaced"
    report = load.report
    assert 0.45 < report.share(bool(each.writes) for each in report.samples) < 0.55
    assert report.share(each.hops > 0 for each in report.samples) > 0.3
    assert_clean(project)
    # What the consumers held was handed back, and mailed by the next ones.
    eventually(lambda: ledger.undelivered(project, ENVIRONMENT) == 0, 60, "a mail for every item")


def test_control_compose_alone_loses_requests(project: Project) -> None:
    """The same load, and what Compose does to the same services: a load that loses nothing here would prove nothing."""
    compose = ["docker", "compose", "--env-file", f"config/{ENVIRONMENT}/.env"]
    with Load(project, rate=RATE) as load:
        time.sleep(3)
        load.enter("recreated")
        recreate = [*compose, "up", "-d", "--no-deps", "--force-recreate", *ROLLING]
        subprocess.run(recreate, cwd=project.folder, check=True, capture_output=True)
    assert len(load.report.all.lost) > 25, str(load.report)
    # lost, and yet not forgotten: what was acknowledged is there
    assert load.ledger.exact, str(load.ledger)
    assert "nothing to change" in deploy(project)


@pytest.mark.parametrize("bad", told(BAD_RELEASES, SHORT))
def test_bad_release_hurts_nobody(project: Project, bad: Bad) -> None:
    """The old containers serve on, what is new is removed, its last words are shown, the next deploy works."""
    before = containers(project)
    with Load(project, rate=EASY) as load:
        with edited(project, bad.edits):
            said = deploy(project, code=bad.code)
        assert bad.shown in said
        assert containers(project) == before, "the containers that served before, and no other"
        assert_clean(project)
        deploy(project)
    assert_nothing_lost(load)
    assert_clean(project)


@pytest.mark.fault
def test_release_that_hangs_on_sigterm_cannot_stop_the_next(project: Project) -> None:
    with Load(project, rate=EASY) as load:
        with edited(project, DEAF.edits):
            deploy(project)
        said = deploy(project)
    assert re.search(r"web-\d+ did not end by itself", said)
    assert_nothing_lost(load)
    assert_clean(project)


@pytest.mark.parametrize("kill", told(KILLS, SHORT_KILLS))
def test_killed_deployer_leaves_nothing_behind(project: Project, kill: Kill) -> None:
    """SIGKILL in the middle, and deploy again: it converges, nothing is lost, nothing is left over."""
    before = serving(project)
    with Load(project, rate=EASY) as load:
        version(project, f"killed at {kill}" if kill.at == "building" else _other(project))
        killed(project, kill)
        deploy(project)
    assert_nothing_lost(load)
    assert_clean(project)
    assert all(before[service].isdisjoint(ids) for service, ids in serving(project).items())
    assert "nothing to change" in deploy(project)


def test_stop_lets_open_requests_finish(project: Project) -> None:
    """One that crosses an internal hop, too: what is open goes on, who comes meanwhile is told to come back."""
    with project.client(ENVIRONMENT) as client, ThreadPoolExecutor() as pool:
        project.sign_in(client, "patient@example.com")
        client.get("/login")
        slow = pool.submit(client.get, "/api/v1/slow?seconds=8")
        time.sleep(1)
        stopping = pool.submit(project.invoke, "stop", "--env", ENVIRONMENT)
        late = eventually(lambda: _closed(project), 8, "503 for who comes while it stops")
        assert late.headers["retry-after"] == "60"
        assert slow.result().status_code == 200
        stopping.result()
    deploy(project)
    assert_clean(project)


def _closed(project: Project) -> httpx.Response | None:
    with project.client(ENVIRONMENT) as client:
        answer = client.get("/login")
    return answer if answer.status_code == 503 else None


def _other(project: Project) -> str:
    """The version, of those that are built, that does not run."""
    text = (project.folder / "services/common/stack/version.py").read_text()
    return "b" if '"a"' in text else "a"


def test_a_good_release_after_all_that(project: Project) -> None:
    version(project, _other(project), "web/web")
    before = serving(project)
    with Load(project, rate=EASY) as load:
        deploy(project)
    assert_nothing_lost(load)
    after = serving(project)
    assert before["web"].isdisjoint(after["web"])
    assert all(before[service] == after[service] for service in ROLLING if service != "web"), "only web has changed"
    assert unchosen(project) == []
    project.invoke("down", "--env", ENVIRONMENT, "--volumes", "--yes")
    assert project.containers(ENVIRONMENT) == {}
