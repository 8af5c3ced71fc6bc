"""What happens to a stack that runs, by mistake or by accident: a deploy puts it right, nothing is lost.

The tests share one stack, in this order.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from .project import Project, docker, eventually, refused

pytestmark = [pytest.mark.story, pytest.mark.fault]


def test_ctrl_c_during_deploy_then_deploy_again(project: Project) -> None:
    project.invoke("secret-init")
    code, output = project.interrupted("deploy", at="starting the data tier", after=2)
    assert code == 130, output
    assert "Traceback" not in output and "invoke deploy" in output
    project.invoke("deploy")
    assert project.health()["healthy"] is True
    leftovers = [name for name in project.containers() if not name.startswith(project.name())]
    assert leftovers == []


def test_killed_during_deploy_then_deploy_again(project: Project) -> None:
    project.set(LOG_LEVEL="info")  # every service of ours is recreated
    code, _ = project.interrupted("deploy", at="starting beside", after=0.5, how=signal.SIGKILL)
    assert code == -signal.SIGKILL
    project.invoke("deploy")
    assert project.health()["healthy"] is True


def test_a_second_deploy_at_the_same_time_is_refused(project: Project) -> None:
    project.set(LOG_LEVEL="warning")
    first, _ = project.reach("starting beside", "deploy")
    refused(project.invoke("deploy", code=3), "dev is being changed: invoke deploy --env dev by", "invoke unlock")
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output


def test_a_service_that_crashes_is_named_with_its_reason(project: Project) -> None:
    broken = project.folder / "services/web/web/__init__.py"
    good = broken.read_text()
    serving = {name: number for name, number in project.containers().items() if "-migrate-" not in name}
    broken.write_text(good + '\nraise RuntimeError("the flux capacitor is missing")\n')
    try:
        # It ends, also in dev's image, and nobody waits until DEPLOY_TIMEOUT is over.
        done = project.invoke("deploy", code=6)
        refused(done, "web", "the flux capacitor is missing", "The old containers keep serving")
        assert serving.items() <= project.containers().items()
        assert project.health()["healthy"] is True
    finally:
        broken.write_text(good)
    project.invoke("deploy")
    assert project.health()["healthy"] is True


def test_health_tells_what_is_down(project: Project) -> None:
    (replica,) = [name for name in project.containers() if "postgres-replica" in name]
    docker("stop", replica)
    try:
        report = project.health(code=1)
        assert report["healthy"] is False
        failing = [f"{check['name']} {check['target']}" for check in report["checks"] if check["status"] != "ok"]
        assert any("postgres-replica" in name for name in failing), failing
    finally:
        docker("start", replica)
    eventually(lambda: project.health(code=None)["healthy"], 60, "health after the replica came back")


def test_restore_refuses_a_truncated_archive_before_touching_anything(project: Project, tmp_path: Path) -> None:
    project.invoke("backup")
    (archive,) = (project.folder / "backups/dev").glob("*.tar")
    damaged = tmp_path / archive.name
    shutil.copy(archive, damaged)
    os.truncate(damaged, damaged.stat().st_size // 2)
    before = project.containers()
    refused(project.invoke("restore", str(damaged), "--yes", code=None), damaged.name)
    assert project.containers() == before
    assert project.health()["healthy"] is True


def test_restore_asks_first(project: Project) -> None:
    (archive,) = (project.folder / "backups/dev").glob("*.tar")
    refused(project.invoke("restore", str(archive), code=None, stdin="no\n"))
    assert project.health()["healthy"] is True


def test_a_container_that_was_killed_is_brought_back_by_deploy(project: Project) -> None:
    (victim,) = [name for name in project.containers() if "auth-service" in name]
    docker("kill", victim)
    time.sleep(1)
    docker("stop", victim, check=False)
    assert project.health(code=1)["healthy"] is False
    project.invoke("deploy")
    assert project.health()["healthy"] is True
