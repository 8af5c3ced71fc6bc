"""Backups of staging as its owner takes, lists, proves and uses them.

The tests share one stack, in this order.
"""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from . import failover, rollouts
from .failover import ENVIRONMENT, sql
from .project import Project, docker, eventually, refused

pytestmark = pytest.mark.story

AT = ("--env", ENVIRONMENT)
_PARTS = "docker-compose.scheduler.yml:docker-compose.backup.yml"


def listing(project: Project) -> dict[str, Any]:
    """The only target as `backup --list` shows it."""
    (target,) = json.loads(project.invoke("backup", "--list", "--json", *AT).stdout)["targets"]
    assert target["error"] == "" and target["damaged"] == []
    return dict(target)


def entries(project: Project) -> list[dict[str, Any]]:
    """The backups, the newest first."""
    return list(listing(project)["entries"])


def containers(project: Project, *filters: str) -> list[str]:
    """Running and stopped containers of the project that are none of its services' own."""
    of_project = f"label=com.docker.compose.project={project.name(ENVIRONMENT)}"
    options = (f"--filter={each}" for each in (of_project, "label=com.docker.compose.oneoff=True", *filters))
    return docker("ps", "--all", "--quiet", *options).split()


def taking(project: Project) -> str:
    """The container that has the lock of whoever takes a backup; "" when none has."""
    running = containers(project, "label=com.docker.compose.service=backup", "status=running")
    script = "flock --nonblock /cache/take.lock true || echo held"
    return next((each for each in running if docker("exec", each, "sh", "-c", script, check=False) == "held"), "")


def beside(project: Project) -> list[str]:
    """What is left of a server beside the stack: containers and volumes."""
    label = f"label=ops.scratch={project.name(ENVIRONMENT)}"
    return [*docker("ps", "-aq", "-f", label).split(), *docker("volume", "ls", "-q", "-f", label).split()]


def words(project: Project) -> str:
    return sql(project, "SELECT string_agg(words, ' ' ORDER BY words) FROM kept")


def backup_check(project: Project, target: str = "/backups") -> dict[str, str]:
    found = project.health(ENVIRONMENT, code=None)["checks"]
    return next(each for each in found if each["name"] == "backups" and each["target"] == target)


def reaches(project: Project) -> datetime:
    """The last moment that can be recovered."""
    return datetime.fromisoformat(listing(project)["window"]["until"])


def written_by(project: Project) -> str:
    """A moment by which everything written until now is in the log, and after which nothing has been."""
    time.sleep(1)
    found = sql(project, "SELECT now()")
    time.sleep(1)
    sql(project, "INSERT INTO later DEFAULT VALUES")
    return found


def test_a_stack_without_a_backup_says_so(project: Project) -> None:
    rollouts.prepare(project, replicas=1)
    files = project.settings(ENVIRONMENT)["COMPOSE_FILE"]
    files = files.replace("postgres.yml:", "postgres.yml:docker-compose.postgres-failover.yml:")
    files = files.replace("docker-compose.services", f"{_PARTS}:docker-compose.services")
    project.set(ENVIRONMENT, COMPOSE_FILE=f"{files}:docker-compose.backup-volumes.yml", BACKUP_WAL_SECONDS="5")
    project.invoke("deploy", *AT)
    sql(project, "CREATE TABLE kept (words text); CREATE TABLE later (id serial)")
    sql(project, "INSERT INTO kept VALUES ('first')")
    assert "take one: invoke backup" in project.invoke("backup", "--list", *AT).stdout
    assert entries(project) == []
    refused(project.invoke("restore", "latest", "--yes", *AT, code=1), "The first backup makes it")
    eventually(lambda: "none yet" in backup_check(project)["detail"], 30, "health says that there is none")


def test_a_backup_is_taken_listed_and_proven(project: Project) -> None:
    said = project.invoke("backup", *AT).stdout
    (entry,) = entries(project)
    assert f"backup {entry['id']}: full" in said
    assert (entry["kind"], entry["verification"], entry["environment"]) == ("full", None, ENVIRONMENT)
    listed = project.invoke("backup", "--list", *AT).stdout
    assert entry["id"] in listed and "not yet" in listed
    proven = project.invoke("backup", "--verify", *AT).stdout
    assert f"backup {entry['id']} was restored and is what was saved" in proven
    assert "Every backup has been verified before" in project.invoke("backup", "--verify", *AT).stdout
    (entry,) = entries(project)
    assert entry["verification"]["good"] is True and entry["verification"]["problems"] == []


def test_the_next_one_holds_what_changed(project: Project) -> None:
    sql(project, "INSERT INTO kept VALUES ('second')")
    (full,) = entries(project)
    taken = json.loads(project.invoke("backup", "--json", *AT).stdout)
    newest, _ = entries(project)
    assert (newest["id"], newest["kind"], newest["previous"]) == (taken["id"], "incremental", full["id"])
    assert newest["added"] < full["added"]


def test_health_and_doctor_know_it(project: Project) -> None:
    found = eventually(lambda: (each := backup_check(project))["status"] == "ok" and each, 30, "health has looked")
    assert "last proven" in found["detail"] and "never" not in found["detail"]
    assert backup_check(project, "WAL")["status"] == "ok"
    assert backup_check(project, "elsewhere")["status"] == "warn"
    doctor = " ".join(project.invoke("doctor", *AT, code=None).stdout.split())
    assert "every target is a folder of this machine" in doctor
    assert "nobody knows whether the kept BACKUP_KEY opens them" in doctor


@pytest.mark.fault
@pytest.mark.parametrize("arguments", [("--list",), ("--list", "--json")])
def test_who_reads_one_line_of_the_list_gets_no_complaint(project: Project, arguments: tuple[str, ...]) -> None:
    line = shlex.join([sys.executable, "-m", "invoke", "backup", *arguments, *AT])
    script = f"{line} | head -1; exit ${{PIPESTATUS[0]}}"
    environ = {**os.environ, **project.environ}
    done = subprocess.run(["bash", "-c", script], cwd=project.folder, env=environ, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""
    # As a program ends whose reader has gone, or that had written all of it before.
    assert done.returncode in {0, 128 + signal.SIGPIPE}


def test_a_second_checkout_lists_the_same(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns(".state", ".git", "__pycache__", "backups"))
    other = Project(folder)
    assert entries(other) == entries(project)


@pytest.mark.fault
def test_two_at_once_and_ctrl_c(project: Project) -> None:
    """The second is refused; the first is interrupted and leaves no backup, and no container. The next one works."""
    before = entries(project)
    process = project.start("backup", *AT)
    taker = eventually(lambda: taking(project), 60, "a backup is being taken")
    # A fast machine would be done with it before the second one has begun.
    docker("pause", taker)
    refused(project.invoke("backup", *AT, code=3), "A backup is being taken already.")
    docker("unpause", taker)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    print(said)
    assert process.returncode == 130 and "Traceback" not in said
    eventually(lambda: not containers(project), 30, "no container is left")
    assert entries(project) == before
    project.invoke("backup", *AT)
    assert len(entries(project)) == len(before) + 1


@pytest.mark.fault
def test_no_changes_nothing(project: Project) -> None:
    leader, follower = pty.openpty()
    before = words(project), project.containers(ENVIRONMENT)
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", "restore", "latest", *AT],
        cwd=project.folder,
        env={**os.environ, **project.environ},
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(follower)
        os.write(leader, b"no\n")
        said, complaints = process.communicate(timeout=120)
    os.close(leader)
    print(said, complaints)
    assert process.returncode == 1 and "Nothing was changed." in complaints
    assert "It replaces what staging holds now" in said
    assert (words(project), project.containers(ENVIRONMENT)) == before and containers(project) == []


def test_a_moment_is_served_beside_the_stack(project: Project) -> None:
    """After Ctrl-C nothing of it is left, and the next one works."""
    moment = written_by(project)
    sql(project, "DELETE FROM kept")
    arguments = ("restore", "--to", moment, "--into", "scratch", *AT)
    process = project.start(*arguments)
    eventually(lambda: containers(project, f"volume={project.name(ENVIRONMENT)}-scratch"), 60, "it is being recovered")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    print(said)
    assert process.returncode == 130 and "Traceback" not in said
    assert eventually(lambda: not containers(project), 30, "no container is left") and beside(project) == []

    served = json.loads(project.invoke(*arguments, "--json").stdout)
    password = (project.folder / "config" / ENVIRONMENT / "secrets" / "POSTGRES_PASSWORD").read_text().strip()
    image = docker("inspect", "--format", "{{.Config.Image}}", failover.node(project, failover.primary(project)))
    client = ("run", "--rm", "--network", "host", "--env", f"PGPASSWORD={password}", "--entrypoint", "psql", image)
    query = "SELECT string_agg(words, ' ' ORDER BY words) FROM kept"
    assert docker(*client, served["url"], "-At", "-c", query) == "first second"
    assert words(project) == ""
    refused(project.invoke(*arguments, code=3), "is there already", "--drop-scratch")
    assert "removed" in project.invoke("restore", "--drop-scratch", *AT).stdout
    assert beside(project) == []
    assert "nothing to remove" in project.invoke("restore", "--drop-scratch", *AT).stdout


@pytest.mark.fault
def test_one_database_is_restored(project: Project) -> None:
    sql(project, "INSERT INTO kept VALUES ('mistake')")
    name = project.settings(ENVIRONMENT)["POSTGRES_DB"]
    project.invoke("restore", "latest", "--only", f"database:{name}", "--yes", *AT)
    assert words(project) == "first second"
    eventually(lambda: project.health(ENVIRONMENT, code=None)["healthy"], 60, "health")
    assert containers(project) == []


@pytest.mark.fault
def test_the_primary_is_lost_and_no_write_with_it(project: Project) -> None:
    """A backup from before, restored to a moment after the failover: the log goes on from one timeline to the next."""
    failover.make_table(project)
    failover.settled(project)
    newest = entries(project)[0]["id"]
    old = failover.primary(project)
    with failover.writing(project) as writer:
        time.sleep(3)
        docker("kill", failover.node(project, old))
        eventually(lambda: failover.primary(project), 60, "a new primary")
        time.sleep(3)
        account = writer.stop()
    assert max(account.acknowledged.values()) > max(at for at, _ in account.failures)
    docker("start", failover.node(project, old))
    failover.settled(project)
    moment = written_by(project)
    sql(project, "DELETE FROM api.failover_probe")
    eventually(lambda: backup_check(project, "WAL")["status"] == "ok", 60, "WAL is received from the new primary")
    eventually(lambda: reaches(project) > datetime.fromisoformat(moment), 60, "the log at the target reaches it")
    project.invoke("restore", "--to", moment, "--only", "postgres", "--yes", *AT)
    assert failover.lost(project, account) == []
    assert entries(project)[0]["id"] == newest
