"""`invoke restore` is killed at random moments, on a stack of dev that takes its backups itself.

    python -m tests.bench.restores [--kills 20]

The whole foreground group gets SIGKILL. Then, in turn: `restore --undo` has to bring back what there was before, or the
same restore, again, what the backup holds. A kill that came too late is the control: the restore is done, and there is
nothing to undo. Needs an engine; some 20 minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.bench.rollouts import noted, table
from tests.stack.data import psql, write, written
from tests.stack.project import Project, docker

PARTS = "docker-compose.scheduler.yml:docker-compose.backup.yml"
RESTORE = ("restore", "latest", "--yes")


def left(project: Project) -> list[str]:
    """Containers and volumes that a restore made and did not remove."""
    name = project.name()
    once = docker(
        *("ps", "-aq", f"--filter=label=com.docker.compose.project={name}"),
        "--filter=label=com.docker.compose.oneoff=True",
    )
    beside = [docker(*each, "-q", f"--filter=label=ops.scratch={name}") for each in (("ps", "-a"), ("volume", "ls"))]
    return [*once.split(), *(word for each in beside for word in each.split())]


def healthy(project: Project, seconds: float = 60) -> bool:
    """Whether health is well within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if project.health(code=None)["healthy"]:
            return True
        time.sleep(1)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Project.temporary(Path(folder)) as project:
        files = project.settings()["COMPOSE_FILE"]
        files = files.replace("docker-compose.services", f"{PARTS}:docker-compose.services")
        project.set(COMPOSE_FILE=f"{files}:docker-compose.backup-volumes.yml", BACKUP_WAL_SECONDS="5")
        project.invoke("deploy", "--yes")
        write(project, "then")
        psql(project, "CREATE TABLE more AS SELECT g AS id, md5(g::text) AS words FROM generate_series(1, 200000) g")
        project.invoke("backup")
        then = written(project)
        began = time.monotonic()
        project.invoke(*RESTORE)
        usual = time.monotonic() - began
        assert written(project) == then
        rows = []
        for number in range(asked.kills):
            write(project, "now")
            now = written(project)
            process, moment = project.start(*RESTORE), random.uniform(0.5, usual)
            time.sleep(moment)
            done = process.poll() is not None
            if not done:
                os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate(timeout=60)[0].strip().splitlines()
            undo = number % 2 == 0
            again = project.invoke("restore", "--undo", code=None) if undo else project.invoke(*RESTORE, code=None)
            found, wanted = written(project), now if undo and not done else then
            rows.append(
                noted([
                    f"{moment:.1f}{', it was done' if done else ''}",
                    said[-1][:70] if said else "",
                    "restore --undo" if undo else "the same again",
                    str(again.returncode),
                    "yes" if found == wanted else f"**no**: {found}",
                    "yes" if healthy(project) else "**no**",
                    " ".join(left(project)) or "nothing",
                ])
            )  # fmt: skip
        head = ("killed after, s", "its last words", "then", "exit code", "as it must be", "healthy", "left over")
        print(f"\na restore takes {usual:.0f} s\n\n{table(head, rows)}\n")
        print(Counter((row[2], row[3], row[4], row[5], row[6]) for row in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
