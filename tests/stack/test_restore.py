"""A restore that is killed at any point: the old data is put back, and nothing is left of the new one.

The tests share one stack, in this order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from .data import container, psql, write, written
from .project import Project, docker, eventually, refused

pytestmark = pytest.mark.story

_archive = ""


def test_what_it_replaces(dev_stack: Project) -> None:
    global _archive
    write(dev_stack, "then")
    _archive = json.loads(dev_stack.invoke("backup", "--json").stdout)["path"]
    write(dev_stack, "now")


def running(project: Project, service: str) -> bool:
    found = docker("inspect", "--format", "{{.State.Running}}", container(project, service), check=False)
    return found == "true"


def exists(project: Project, ending: str) -> bool:
    query = f"SELECT count(*) FROM pg_database WHERE datname LIKE 'appdb\\_{ending}%'"
    with contextlib.suppress(AssertionError):
        return psql(project, query) == "1"
    return False


MOMENTS: dict[str, Callable[[Project], bool]] = {
    "a database is loaded": lambda project: exists(project, "restoring"),
    "the services are stopped": lambda project: not running(project, "web"),
    "the databases are swapped": lambda project: exists(project, "before_restore"),
    "Redis is stopped": lambda project: not running(project, "redis-primary"),
}


# In the ladder: the moment with the most to put back.
SHORT = "the databases are swapped"


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=() if each == SHORT else pytest.mark.fault) for each in MOMENTS]
)
def test_a_kill_is_undone(dev_stack: Project, moment: str) -> None:
    before = written(dev_stack)
    process = dev_stack.start("restore", _archive, "--yes")
    eventually(lambda: process.poll() is not None or MOMENTS[moment](dev_stack), 120, moment)
    assert process.poll() is None, process.communicate()[0]
    # What it has started goes with it, as when the machine's memory is short.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=30)
    if moment != "a database is loaded":
        refused(dev_stack.invoke("deploy", code=3), "killed while it swapped the data", "restore --undo")
    done = dev_stack.invoke("restore", "--undo")
    assert "was killed" in done.stderr
    assert written(dev_stack) == before
    eventually(lambda: dev_stack.health(code=None)["healthy"], 60, "health")
    assert "nothing to undo" in dev_stack.invoke("restore", "--undo").stdout


def test_one_part_is_restored_and_the_others_stay(dev_stack: Project) -> None:
    dev_stack.invoke("restore", _archive, "--only", "redis", "--yes")
    row, key, files, _ = written(dev_stack)
    assert (row, key, files.split()) == ("now", "then", ["now", "kept", "now", "then"])
    dev_stack.invoke("restore", _archive, "--only", "volume:web_uploads", "--yes")
    assert written(dev_stack)[2].split() == ["then", "kept", "then"]
    assert psql(dev_stack, "SELECT words FROM kept") == "now"
    refused(
        dev_stack.invoke("restore", _archive, "--only", "volume:none", "--yes", code=2), "does not hold volume:none"
    )


def test_the_next_restore_does_all_of_it(dev_stack: Project) -> None:
    dev_stack.invoke("restore", _archive, "--yes")
    assert written(dev_stack)[:2] == ("then", "then")
    psql(dev_stack, "DROP TABLE kept")
