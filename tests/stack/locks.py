"""Processes that contend for the lock of an environment, as commands do."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from .project import Project, docker

# What a command does, without a deploy in between: take the lock, say so, keep it until its input ends, and look
# whether it is still there.
_CONTENDER = """\
import select, sys
from ops.base import environments
from ops.base.errors import OpsError
from ops.state import lock
try:
    with lock.hold(environments.load("dev"), "deploy --env dev") as held:
        print("holds", flush=True)
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            held.check()
    print("released")
except OpsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""
# A real deploy. Everything is imported before it is let go, so that all of a round come at the same moment.
_DEPLOYER = """\
import sys
from ops.base import environments
from ops.base.errors import OpsError
from ops.rollout import deploy
print("ready", flush=True)
sys.stdin.readline()
try:
    deploy.deploy(environments.load("dev"))
except OpsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""
HELD, REFUSED = 0, 3


def contend(project: Project) -> subprocess.Popen[str]:
    """Start one that wants the lock, and keeps it until its input is closed."""
    return _start(project, _CONTENDER)


def _start(project: Project, program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=project.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def holding(project: Project) -> subprocess.Popen[str]:
    """One that has the lock already."""
    holder = contend(project)
    said = holder.stdout.readline()
    assert said == "holds\n", said + holder.stderr.read()
    return holder


@dataclass(frozen=True)
class Round:
    """Several at once: the exit code of each."""

    codes: tuple[int, ...]

    @property
    def fair(self) -> bool:
        """Exactly one had it, all others were refused."""
        return sorted(self.codes) == [HELD, *[REFUSED] * (len(self.codes) - 1)]


def simultaneous(project: Project, count: int) -> Round:
    """So many at once; who gets it keeps it until all others have had their answer."""
    contenders = [contend(project) for _ in range(count)]
    deadline = time.monotonic() + 120
    while sum(each.poll() is None for each in contenders) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    for each in contenders:
        each.communicate(timeout=120)
    return Round(tuple(each.returncode for each in contenders))


def simultaneous_deploys(project: Project, count: int) -> Round:
    """So many deploys at once; what there is to deploy must last longer than they need to come."""
    deployers = [_start(project, _DEPLOYER) for _ in range(count)]
    for each in deployers:
        assert each.stdout.readline() == "ready\n", each.stderr.read()
    for each in deployers:
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in deployers:
        each.communicate(timeout=300)
    return Round(tuple(each.returncode for each in deployers))


def container(project: Project) -> str:
    """The container that is the lock; "" when there is none."""
    return docker("ps", "--all", "--quiet", "--filter", f"name=^{project.name()}-change-lock$")


def seconds_until_free(project: Project) -> float:
    """How long the lock is still there, in seconds."""
    began = time.monotonic()
    while container(project):
        assert time.monotonic() - began < 60, "the lock is still there"
    return time.monotonic() - began
