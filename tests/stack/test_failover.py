"""PostgreSQL loses its primary on a real engine: nothing acknowledged is lost, and the old one becomes the standby.

`python -m tests.bench.failover` measures, with all faults, more rounds and a control that loses some.
"""

from __future__ import annotations

import time

import pytest

from . import failover
from .failover import ENVIRONMENT
from .project import Project, docker, eventually

pytestmark = pytest.mark.story


def check(project: Project, target: str) -> dict[str, str]:
    """One check of `invoke health`, whatever the verdict on the rest."""
    found = project.health(ENVIRONMENT, code=None)["checks"]
    return next(each for each in found if each["name"] == "postgres" and each["target"] == target)


def test_a_stack_with_automatic_failover_deploys(project: Project) -> None:
    failover.prepare(project, replicas=1)
    project.invoke("deploy", "--env", ENVIRONMENT)
    failover.make_table(project)
    assert failover.roles(project) == {"postgres-primary": "primary", "postgres-replica": "standby"}
    failover.settled(project)
    assert check(project, "failover")["detail"] == "automatic, safe: postgres-replica can take over"


def test_nobody_but_the_nodes_reaches_the_lease(project: Project) -> None:
    """Neither etcd nor an order to Patroni: not even from the network of the databases."""
    script = (
        "import socket, urllib.request, urllib.error\n"
        "try: socket.getaddrinfo('etcd', 2379); print('etcd has a name')\n"
        "except OSError: pass\n"
        "order = urllib.request.Request('http://postgres-primary:8008/restart', b'{}')\n"
        "try: print(urllib.request.urlopen(order).status)\n"
        "except urllib.error.HTTPError as refused: print(refused.code)\n"
    )
    said = docker("exec", failover.node(project, "api"), "python", "-c", script)
    assert said in {"401", "403"}


def test_a_planned_failover_loses_nothing(project: Project) -> None:
    with failover.writing(project) as writer:
        time.sleep(3)
        said = project.invoke("failover", "--env", ENVIRONMENT).stdout
        time.sleep(3)
        account = writer.stop()
    assert "postgres-replica is the primary now; no write for " in said
    assert failover.roles(project) == {"postgres-primary": "standby", "postgres-replica": "primary"}
    assert failover.lost(project, account) == []
    assert len(account.acknowledged) > 100


def test_the_standby_takes_over_when_the_primary_is_gone(project: Project) -> None:
    """The old primary is gone for good until somebody starts it: by then it takes no write, and follows."""
    failover.settled(project)
    old = failover.primary(project)
    container = failover.node(project, old)
    with failover.writing(project) as writer:
        time.sleep(3)
        docker("kill", container)
        eventually(lambda: failover.primary(project), 60, "a new primary")
        assert check(project, "failover")["status"] == "warn"
        time.sleep(5)
        with failover.writing(project, hosts=f"{old}:5432", role="any", threads=1) as direct:
            docker("start", container)
            failover.settled(project, 60)
            assert direct.stop().acknowledged == {}
        account = writer.stop()
    roles = failover.roles(project)
    assert roles[old] == "standby" and sorted(roles.values()) == ["primary", "standby"]
    assert failover.lost(project, account) == []
    # It wrote before and after.
    assert len(account.acknowledged) > 100 and account.failures
    assert max(account.acknowledged.values()) > max(at for at, _ in account.failures)


@pytest.mark.fault
def test_writes_go_on_without_the_standby_and_it_catches_up(project: Project) -> None:
    """Whoever looks at the health meanwhile reads that nobody could take over."""
    failover.settled(project)
    gone = failover.standby(project)
    container = failover.node(project, gone)
    with failover.writing(project) as writer:
        docker("kill", container)
        eventually(lambda: not failover.synchronous(project), 30, "the primary does without it")
        before = len(writer.account().acknowledged)
        eventually(lambda: len(writer.account().acknowledged) > before, 30, "writes go on")
        assert check(project, "failover")["status"] == "warn"
        docker("start", container)
        failover.settled(project, 60)
        account = writer.stop()
    assert failover.lost(project, account) == []
    eventually(lambda: check(project, "failover")["status"] == "ok", 30, "health says so")
    assert check(project, "replication")["status"] == "ok"


@pytest.mark.fault
def test_a_person_need_not_wait_for_the_lease(project: Project) -> None:
    failover.settled(project)
    old = failover.primary(project)
    with failover.writing(project) as writer:
        time.sleep(3)
        docker("pause", failover.node(project, old))
        said = project.invoke("promote", "--env", ENVIRONMENT, "--yes").stdout
        failover.settled(project, 60)
        account = writer.stop()
    assert "no acknowledged write is lost" in said
    assert failover.roles(project)[old] == "standby"
    assert failover.lost(project, account) == []


@pytest.mark.fault
def test_an_edit_restarts_the_nodes_one_after_the_other(project: Project) -> None:
    """The standby first; then the primary hands over instead of being restarted under its clients."""
    before = failover.primary(project)
    with (project.folder / "infrastructure/postgres/common.conf").open("a", encoding="utf-8") as file:
        file.write("# another word\n")
    with failover.writing(project) as writer:
        time.sleep(2)
        said = project.invoke("deploy", "--env", ENVIRONMENT, "--yes").stdout
        account = writer.stop()
    assert "is the primary now; no write for" in said
    assert failover.primary(project) != before
    assert failover.lost(project, account) == []


@pytest.mark.fault
def test_without_etcd_the_primary_goes_on(project: Project) -> None:
    """Its lease ends, and the other node confirms that it is the primary. Nobody may be promoted meanwhile."""
    failover.settled(project)
    leader = failover.primary(project)
    etcd = failover.node(project, "etcd")
    with failover.writing(project) as writer:
        docker("kill", etcd)
        time.sleep(25)
        assert failover.primary(project) == leader
        assert "etcd" in check(project, "failover")["detail"]
        project.invoke("failover", "--env", ENVIRONMENT, code=3)
        docker("start", etcd)
        time.sleep(3)
        account = writer.stop()
    assert failover.primary(project) == leader
    assert failover.lost(project, account) == []


@pytest.mark.fault
def test_an_etcd_that_lost_everything_learns_from_the_nodes(project: Project) -> None:
    """It counts elections from the beginning, and Patroni takes a smaller count for that of a node left behind; each
    start is an election, and it was started once more than the new one (see the runbook)."""
    failover.settled(project)
    leader = failover.primary(project)
    with failover.writing(project) as writer:
        docker("rm", "--force", failover.node(project, "etcd"))
        docker("volume", "rm", f"{project.name(ENVIRONMENT)}_etcd_data")
        project.invoke("deploy", "--env", ENVIRONMENT)
        docker("restart", failover.node(project, "etcd"))
        eventually(lambda: check(project, "failover")["status"] == "ok", 60, "a failover is safe again")
        account = writer.stop()
    assert failover.primary(project) == leader
    assert failover.lost(project, account) == []


@pytest.mark.fault
def test_the_pair_can_go_back_to_failover_by_hand(project: Project) -> None:
    """One setting, in either direction: the volumes stay, and so does every row."""
    rows = failover.sql(project, "SELECT count(*) FROM api.failover_probe")
    files = project.settings(ENVIRONMENT)["COMPOSE_FILE"]
    plain = ":".join(each for each in files.split(":") if each not in failover.FAILOVER)
    project.set(ENVIRONMENT, COMPOSE_FILE=plain, REDIS_SENTINELS="")
    project.invoke("deploy", "--env", ENVIRONMENT, "--yes")
    assert failover.sql(project, "SELECT count(*) FROM api.failover_probe") == rows
    project.invoke("failover", "--env", ENVIRONMENT)
    project.set(ENVIRONMENT, COMPOSE_FILE=files, REDIS_SENTINELS=failover.SENTINELS)
    project.invoke("deploy", "--env", ENVIRONMENT, "--yes")
    failover.settled(project)
    assert failover.sql(project, "SELECT count(*) FROM api.failover_probe") == rows
