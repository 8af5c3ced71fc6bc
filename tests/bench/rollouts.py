"""Rollouts under load: what gets lost, how long users wait, how long a deploy takes, and what Compose does by itself.

    python -m tests.bench.rollouts [--deploys 10] [--requests 20000] [--rate 100] [--only PART …] [--share 1/3]

The load is the one of tests/load: open loop, no retries, half of the requests write, a round trip of 50 ms to nginx.
That nothing is lost says little beside a control that loses nothing either: the controls are part of the run. Needs an
engine, some 40 minutes and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.load.ledger import Ledger
from tests.load.report import Phase, Report
from tests.load.run import Load
from tests.stack.project import Project
from tests.stack.rollouts import (
    BAD_RELEASES,
    DEAF,
    ENVIRONMENT,
    KILLS,
    ROLLING,
    Edit,
    containers,
    deploy,
    edited,
    killed,
    prepare,
    tidy,
    version,
)

T = TypeVar("T")

IDLE_SECONDS = 30
# Where the machine is to be busy with something else than requests.
EASY = 25
MIXED = ("kept", "fresh")


@dataclass(frozen=True)
class Run:
    """One load, and what was done meanwhile. seconds: how long each time took."""

    what: str
    report: Report
    ledger: Ledger
    seconds: Sequence[float]

    @property
    def during(self) -> Phase:
        return self.report.phase("during")

    def row(self) -> list[str]:
        idle, during = self.report.phase("idle"), self.during
        ratio = during.took(99) / idle.took(99) if idle.took(99) else 0
        found = self.ledger.acknowledged - len(self.ledger.missing) - len(self.ledger.doubled)
        return [
            self.what,
            f"{self.report.all.sent:,} at {self.report.all.rate:.0f}/s",
            f"{len(self.report.all.lost):,}",
            f"{idle.took(50):.0f}, {during.took(50):.0f}",
            f"{idle.took(99):.0f}, {during.took(99):.0f}: × {ratio:.1f}",
            f"{len(self.seconds)}: {statistics.median(self.seconds):.1f}, {max(self.seconds):.1f}",
            f"{found:,} of {self.ledger.acknowledged:,}",
            f"{during.late(99):.0f}",
        ]


HEAD = (
    "what",
    "requests",
    "lost",
    "p50 idle, during, ms",
    "p99 idle, during, ms",
    "deploys: median, max, s",
    "acknowledged POSTs found once",
    "generator late, p99, ms",
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def noted(row: list[str]) -> list[str]:
    """The row, printed as soon as it is measured: what comes after it may fail."""
    print(row, flush=True)
    return row


class Bench:
    """One stack that everything is measured on."""

    def __init__(self, project: Project, options: argparse.Namespace) -> None:
        self.project, self.options = project, options
        self.current = "a"

    def roll(self) -> None:
        """Roll out the other one of two versions whose images are there: no build takes the processor meanwhile."""
        self.current = "b" if self.current == "a" else "a"
        version(self.project, self.current)
        deploy(self.project)

    def build(self) -> None:
        """Bring up both versions once."""
        self.roll()
        self.roll()

    def recreate(self) -> None:
        """What Compose does by itself."""
        compose = ["docker", "compose", "--env-file", f"config/{ENVIRONMENT}/.env"]
        line = [*compose, "up", "-d", "--no-deps", "--force-recreate", *ROLLING]
        subprocess.run(line, cwd=self.project.folder, check=True, capture_output=True)

    def load(
        self,
        what: str,
        change: Callable[[], None],
        times: int,
        *,
        rate: float | None = None,
        transports: Sequence[str] = MIXED,
        requests: int = 0,
    ) -> Run:
        """Do something several times under load, and go on until there were this many requests."""
        seconds: list[float] = []
        rate = rate or self.options.rate
        with Load(self.project, ENVIRONMENT, rate=rate, transports=transports) as load:
            began = time.monotonic()
            time.sleep(IDLE_SECONDS)
            while len(seconds) < times or (time.monotonic() - began) * rate < requests:
                load.enter("during")
                start = time.monotonic()
                change()
                seconds.append(time.monotonic() - start)
                load.enter("between")
                time.sleep(2)
        return Run(what, load.report, load.ledger, seconds)

    # ── lost requests ─────────────────────────────────────────────────────────────────────────────────────────────

    def losses(self) -> str:
        """Ours over HTTP/1.1 and HTTP/2, and the controls."""
        self.build()
        loads = (self.ours, self.recreated, self.killing, self.http2, self.seldom)
        return table(HEAD, [noted(each().row()) for each in self.share(loads)])

    def ours(self) -> Run:
        what = "**our rolling deploy**, HTTP/1.1"
        return self.load(what, self.roll, self.options.deploys, requests=self.options.requests)

    def http2(self) -> Run:
        return self.load("the same, HTTP/2 on 4 connections", self.roll, 2, transports=("http2",))

    def seldom(self) -> Run:
        return self.load("the same, 80 clients that send once in 8 s", self.roll, 3, rate=10, transports=("seldom",))

    def recreated(self) -> Run:
        run = self.load("control: `docker compose up -d --force-recreate`", self.recreate, 2)
        deploy(self.project)
        return run

    def killing(self) -> Run:
        """Old containers are killed as soon as the new ones have the requests: nothing that is open is finished."""
        at_once = """

def stop(containers: Sequence[Container]) -> list[str]:
    engine.docker("rm", "--force", *(each.id for each in containers))
    return []
"""
        setting = ("ROLLOUT_DRAIN_SECONDS=0", "ROLLOUT_DRAIN_SECONDS=60")
        with self.deployed(Edit("ops/rollout/roll.py", at_once), Edit(f"config/{ENVIRONMENT}/.env", *setting)):
            return self.load("control: ours without the drain, old ones killed", self.roll, 2)

    @contextmanager
    def deployed(self, *edits: Edit) -> Iterator[None]:
        """These edits, deployed; and undone and deployed again afterwards."""
        with edited(self.project, edits):
            deploy(self.project)
            yield
        deploy(self.project)

    # ── releases that are no good ─────────────────────────────────────────────────────────────────────────────────

    def bad_releases(self) -> str:
        """Each of them under load, and the good one after it."""
        rows = []
        for bad in self.share((*BAD_RELEASES, DEAF)):
            before = containers(self.project)
            with Load(self.project, ENVIRONMENT, rate=EASY) as load:
                start = time.monotonic()
                with edited(self.project, bad.edits):
                    said = deploy(self.project, bad.code)
                seconds = time.monotonic() - start
                clean = not tidy(self.project) and (bad is DEAF or containers(self.project) == before)
                deploy(self.project)
            lost = f"{len(load.report.all.lost)} of {load.report.all.sent:,}"
            shown = "yes" if bad.shown in said else "no"
            row = [bad.name, str(bad.code), lost, f"{seconds:.0f}", shown, "yes" if clean else "no"]
            rows.append(noted(row))
        return table(("bad release", "exit code", "lost", "s", "its last words shown", "clean afterwards"), rows)

    def share(self, what: Sequence[T]) -> Sequence[T]:
        """The share of them that was asked for: `2/3` is the second third."""
        number, of = self.options.share
        return what[len(what) * (number - 1) // of : len(what) * number // of]

    def kills(self) -> str:
        """SIGKILL of the deployer at every step, and the deploy after it."""
        self.build()
        rows = []
        for kill in self.share(KILLS):
            with Load(self.project, ENVIRONMENT, rate=EASY) as load:
                self.current = f"killed at {kill}" if kill.at == "building" else "b" if self.current == "a" else "a"
                version(self.project, self.current)
                killed(self.project, kill)
                start = time.monotonic()
                deploy(self.project)
                seconds = time.monotonic() - start
            lost = f"{len(load.report.all.lost)} of {load.report.all.sent:,}"
            clean = not tidy(self.project) and "nothing to change" in deploy(self.project)
            rows.append(noted([str(kill), lost, f"{seconds:.0f}", "yes" if clean else "no"]))
        return table(("deployer killed at", "lost", "next deploy, s", "clean afterwards"), rows)

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def times(self) -> str:
        """How a rolling deploy takes longer with more replicas and services."""
        rows = []
        for replicas in self.share((1, 2, 5, 10)):
            self.scale(replicas)
            for services, package in ((1, "web/web"), (4, "common/stack")):
                for name in ("one", "two"):  # built, before either is measured
                    version(self.project, name, package)
                    deploy(self.project)
                with Load(self.project, ENVIRONMENT, rate=10) as load:
                    version(self.project, "one", package)
                    steps = stepped(self.project)
                assert not tidy(self.project, replicas)
                row = [
                    *(str(replicas), str(services), str(replicas * services)),
                    *(f"{steps[name]:.1f}" for name in ("all", *STEPS.values())),
                    f"{steps['all'] / (steps['start'] + steps['prove'] + steps['drain']):.2f}",
                    f"{len(load.report.all.lost)} of {load.report.all.sent:,}",
                ]
                rows.append(noted(row))
        self.scale(2)
        head = (
            "replicas",
            "services",
            "containers",
            "deploy, s",
            *STEPS.values(),
            "deploy ÷ (start + prove + drain)",
            "lost",
        )
        return table(head, rows)

    def scale(self, replicas: int) -> None:
        """Declare and deploy this many of each rolling service."""
        names = ("WEB", "API", "AUTH", "NOTIFICATION")
        self.project.set(ENVIRONMENT, **{f"{name}_REPLICAS": str(replicas) for name in names})
        deploy(self.project)


# What a deploy says when a step begins, and what the step is called here.
STEPS = {
    "running migrate": "migrations",
    "creating": "create",
    "starting beside": "start",
    "sending each new one": "prove",
    "sending requests to": "switch",
    "draining": "drain",
    "stopping": "stop",
}


def stepped(project: Project) -> dict[str, float]:
    """Deploy; seconds of each step, by when the deploy says that the next one begins, and of all."""
    process = project.start("deploy", "--env", ENVIRONMENT)
    assert process.stdout
    start = time.monotonic()
    found = {name: 0.0 for name in ("before", *STEPS.values())}
    current, since, said = "before", start, ""
    for line in process.stdout:
        said += line
        step = next((name for begins, name in STEPS.items() if line.startswith(begins)), None)
        if step:
            found[current] += time.monotonic() - since
            current, since = step, time.monotonic()
    assert process.wait() == 0, said
    found[current] += time.monotonic() - since
    return {**found, "all": time.monotonic() - start}


PARTS = {"losses": Bench.losses, "bad": Bench.bad_releases, "kills": Bench.kills, "times": Bench.times}


def share(text: str) -> tuple[int, int]:
    """`2/3` as (2, 3)."""
    number, _, of = text.partition("/")
    return int(number), int(of)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deploys", type=int, default=10, help="rolling deploys of the first measurement")
    parser.add_argument("--requests", type=int, default=20_000, help="requests of the first measurement, at least")
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these parts only")
    parser.add_argument("--share", type=share, default=(1, 1), help="of the rows of each part: 2/3 is the second third")
    options = parser.parse_args()
    print(f"`python -m tests.bench.rollouts {' '.join(sys.argv[1:])}`, 2 replicas each")
    with tempfile.TemporaryDirectory() as folder:
        # Images of its own: those of another stack of the same organisation would move its tags.
        project = Project.bake(Path(folder), project_name="Bench Stack", organisation=f"Bench {options.only[0]}")
        try:
            prepare(project)
            # for ten replicas, old and new beside each other
            project.set(ENVIRONMENT, POSTGRES_MAX_CONNECTIONS="500")
            bench = Bench(project, options)
            deploy(project)
            tables = [PARTS[name](bench) for name in options.only]
        finally:
            project.remove()
    print("\n\n".join(["", *tables]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
