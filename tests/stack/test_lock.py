"""The lock on the engine: one holder, others refused, free when its holder dies. More: `nox -s bench -- locks`."""

from __future__ import annotations

import os
import signal

import pytest

from . import locks
from .project import Project, docker, eventually

pytestmark = pytest.mark.story


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_one_of_several_at_once_has_it(project: Project, count: int) -> None:
    assert locks.simultaneous(project, count).fair
    assert locks.container(project) == ""


def test_who_comes_second_is_told_who_has_it(project: Project) -> None:
    holder = locks.holding(project)
    done = project.invoke("deploy", code=3)
    assert "dev is being changed: invoke deploy --env dev by " in done.stderr
    assert "invoke unlock --env dev" in done.stderr
    assert "being changed: invoke deploy" in project.invoke("status").stdout
    holder.kill()
    holder.wait()


def test_a_killed_holder_frees_it(project: Project) -> None:
    holder = locks.holding(project)
    os.kill(holder.pid, signal.SIGKILL)
    assert locks.seconds_until_free(project) < 5
    holder.wait()
    locks.holding(project).kill()


def test_a_holder_notices_that_it_was_broken(project: Project) -> None:
    holder = locks.holding(project)
    assert "unlocked" in project.invoke("unlock", "--yes").stdout
    assert holder.wait(timeout=30) == 1 and "is gone" in holder.stderr.read()
    assert "dev is not locked" in project.invoke("unlock", "--yes").stdout


def test_breaking_it_is_asked_for(project: Project) -> None:
    holder = locks.holding(project)
    project.invoke("unlock", code=2)
    assert locks.container(project)
    holder.kill()
    holder.wait()
    eventually(lambda: not locks.container(project), 5, "the lock is free")


def test_what_a_crashed_engine_left_is_no_lock(project: Project) -> None:
    image = project.settings()["NGINX_IMAGE"].replace("${REGISTRY_MIRROR}", "")
    docker("run", "--name", f"{project.name()}-change-lock", "--network", "none", "--entrypoint", "true", image)
    holder = locks.holding(project)
    assert project.containers() == {}
    holder.kill()
    holder.wait()
