"""What the commands cost: `invoke --list`, a deploy with nothing to do, a cold deploy, `health`, memory.

    python -m tests.bench.operations [--rounds 5]

Each figure stands beside its control, measured in turn in the same run; the table shows medians. Needs an engine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.stack.project import Project, docker

# What `invoke --list` costs at the least: as many tasks as ours, with nothing in them.
BARE = "from invoke import task\n" + "".join(f"\n\n@task\ndef task_{n}(c):\n    '''Do {n}.'''\n" for n in range(14))


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def paired(rounds: int, *actions: Callable[[], object]) -> list[float]:
    """Median seconds of each action, the actions taking turns so that a drifting machine drifts for all of them."""
    for action in actions:
        action()  # caches are warm for everybody, or for nobody
    runs = [[seconds(action) for action in actions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def command(*argv: str, folder: Path) -> Callable[[], object]:
    return lambda: subprocess.run(argv, cwd=folder, check=True, capture_output=True, env=os.environ)


def memory(project: Project) -> float:
    """Resident MiB of all containers together, as the engine accounts for them."""
    listing = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", *project.containers().values())
    units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0, "B": 1 / 1024 / 1024}
    used = [re.match(r"([\d.]+)(\w+)", line) for line in listing.splitlines()]
    return sum(float(match[1]) * units[match[2]] for match in used if match)


def services(project: Project) -> list[str]:
    """Names of the services that dev runs."""
    listing = ["docker", "compose", "--env-file", "config/dev/.env", "config", "--services"]
    return subprocess.run(listing, cwd=project.folder, check=True, capture_output=True, text=True).stdout.split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each figure; the median is shown")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        project = Project.bake(Path(folder), project_name="Bench Stack")
        try:
            print(table(measure(project, Path(folder), rounds), rounds))
        finally:
            project.remove()
    return 0


def measure(project: Project, folder: Path, rounds: int) -> list[tuple[str, str, str, str]]:
    """Rows of (figure, ours, control, target)."""
    rows = []
    invoke = (sys.executable, "-m", "invoke")
    here = project.folder

    (folder / "bare").mkdir()
    (folder / "bare" / "tasks.py").write_text(BARE)
    ours, bare = paired(
        rounds * 2, command(*invoke, "--list", folder=here), command(*invoke, "--list", folder=folder / "bare")
    )
    rows.append(("`invoke --list`", f"{ours:.2f} s", f"{bare:.2f} s (bare tasks file): × {ours / bare:.2f}", "≤ × 1.5"))

    project.invoke("deploy")  # builds the images
    cold = []
    for _ in range(max(1, rounds // 2)):
        project.invoke("down", "--volumes", "--yes")
        cold.append(seconds(lambda: project.invoke("deploy")))
    up = ("docker", "compose", "--env-file", "config/dev/.env", "up", "-d", "--wait")
    plain = []
    for _ in range(max(1, rounds // 2)):
        project.invoke("down", "--volumes", "--yes")
        plain.append(seconds(command(*up, folder=here)))
    cold_median, plain_median = statistics.median(cold), statistics.median(plain)
    rows.append(
        (
            "cold deploy to all-healthy, images built, core profile",
            f"{cold_median:.1f} s",
            f"{plain_median:.1f} s (`docker compose up -d --wait`): × {cold_median / plain_median:.2f}",
            "≤ 60 s",
        )
    )
    project.invoke("deploy")

    # Compose runs `migrate` anew at each `up`, which a deploy need not: the second control is without it.
    lasting = [name for name in services(project) if name != "migrate"]
    ours, control, bare = paired(
        rounds,
        command(*invoke, "deploy", folder=here),
        command(*up, folder=here),
        command(*up, "--no-deps", *lasting, folder=here),
    )
    ratio = f"{control:.2f} s (`docker compose up -d --wait`): × {ours / control:.2f}"
    rows.append(("`invoke deploy`, nothing to change", f"{ours:.2f} s", ratio, "≤ × 1.3"))
    ratio = f"{bare:.2f} s (the same without its re-run of `migrate`): × {ours / bare:.2f}"
    rows.append(("", f"{ours:.2f} s", ratio, "≤ × 1.3"))

    walls, slowest = [], []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        report = json.loads(project.invoke("health", "--json").stdout)
        walls.append(time.perf_counter() - start)
        slowest.append(max(check["seconds"] for check in report["checks"]))
    (start_up,) = paired(rounds, command(*invoke, "health", "--help", folder=here))
    wall, probe = statistics.median(walls[1:]), statistics.median(slowest[1:])
    ratios = f"× {(wall - start_up) / probe:.2f} without, × {wall / probe:.2f} with start"
    rows.append(
        (
            "`invoke health`, all probes",
            f"{wall:.2f} s, of it {start_up:.2f} s start of Python and Invoke",
            f"{probe:.2f} s (its slowest probe): {ratios}",
            "≤ × 1.5",
        )
    )
    time.sleep(30)  # past the start-up peak
    rows.append(("memory, core profile, idle", f"{memory(project):,.0f} MiB", "–", "≤ 2,048 MiB"))
    return rows


def table(rows: list[tuple[str, str, str, str]], rounds: int) -> str:
    head = [f"`python -m tests.bench.operations --rounds {rounds}`", "", "| figure | ours | control | target |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    raise SystemExit(main())
