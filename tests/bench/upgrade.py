"""SIGKILL of `invoke upgrade-database` at each of its steps: what serves afterwards, and whether every row is there.

    python -m tests.bench.upgrade [--only STEP …]

Each time the command is simply given once more, as its message says; the stack is brought back to the old major before
the next kill. Needs an engine, both majors of PostgreSQL, and some three minutes a step.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

from tests.bench.rollouts import noted, table
from tests.images import build
from tests.stack.project import Project
from tests.stack.upgrades import NEW, OLD, digests, psql, version

# What the command says when a step begins, in order; the first one touches nothing yet.
STEPS = (
    "making a backup",
    "closing the site",
    "dumping the old database",
    "starting PostgreSQL 18 beside",
    "loading the new database",
    "setting privileges",
    "comparing the rows",
    "stopping the servers",
    "giving the new database its place",
    "starting postgres-primary on PostgreSQL 18",
    "starting postgres-replica on PostgreSQL 18",
    "starting the services",
)
ROWS = 50_000
HEAD = ("killed while", "then", "exit code", "PostgreSQL", "every row there", "healthy", "s")


def killed(project: Project, step: str) -> bool:
    """Begin an upgrade and kill it when it begins a step; whether it came so far."""
    process = project.start("upgrade-database", "--image", NEW, "--yes")
    assert process.stdout
    reached = any(step in line for line in process.stdout)
    if reached:
        # within the step, not before it
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    return reached


def round_of(project: Project, step: str, wanted: dict[str, str]) -> list[str]:
    """Kill it in a step, give the command once more, and look."""
    assert killed(project, step), f"the upgrade never said: {step}"
    began = time.monotonic()
    done = project.invoke("upgrade-database", "--image", NEW, "--yes", code=None)
    seconds = time.monotonic() - began
    said = (done.stdout + done.stderr).strip().splitlines()[-1]
    now = version(project)
    same = "yes" if digests(project) == wanted else "NO"
    healthy = "yes" if project.health(code=None)["healthy"] else "NO"
    if now == NEW.partition(":")[2].partition(".")[0]:
        project.invoke("upgrade-database", "--back", "--yes")
        project.invoke("upgrade-database", "--tidy", "--yes")
    return noted([step, said, str(done.returncode), now, same, healthy, f"{seconds:.0f}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    chosen = parser.parse_args().only
    if reason := build.provide([OLD, NEW]).unavailable.get(OLD):
        print(f"{OLD} cannot be had: {reason}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        project = Project.bake(Path(folder), project_name="Upgrade Bench", organisation="Upgrade Bench")
        try:
            project.set(POSTGRES_IMAGE=OLD)
            project.invoke("deploy")
            psql(project, f"CREATE TABLE api.kept AS SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i")
            rows = [round_of(project, step, digests(project)) for step in chosen]
        finally:
            project.remove()
    print("\n" + table(HEAD, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
