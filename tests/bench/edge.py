"""Our edge beside kamal-proxy and plain nginx: rollouts, failing replicas, parts that are away, its cost.

    python -m tests.bench.edge --kamal-image IMAGE [--only PART …] [--rounds 3]

Everything in a table is measured in the same run, turn by turn, behind a round trip of 50 ms: a figure means little
without those beside it. Needs an engine and a machine that does nothing else. How the image of kamal-proxy comes about
is in tests/bench/edge_parts/fronts.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.bench.edge_parts import at_rest, away, hops
from tests.bench.edge_parts.fronts import Kamal, probed
from tests.bench.rollouts import stepped, table
from tests.load.report import Report
from tests.load.run import Load
from tests.stack.project import Project
from tests.stack.rollouts import ENVIRONMENT, ROLLING, deploy, prepare, version

IDLE_SECONDS = 10
COLUMNS = ("before", "create", "start", "prove", "switch", "drain", "stop")


@dataclass
class Subject:
    """One design. roll: replace what serves, and say how long each step took; target: where it takes requests."""

    name: str
    project: Project
    roll: Callable[[Sequence[str], int], dict[str, float]]
    target: Callable[[], str] = lambda: ""
    reports: list[Report] = field(default_factory=list)
    times: list[dict[str, float]] = field(default_factory=list)
    inexact: int = 0

    def measure(self, services: Sequence[str], count: int, rate: float, times: int) -> None:
        """Rollouts under load."""
        with Load(self.project, ENVIRONMENT, rate=rate, target=self.target()) as load:
            time.sleep(IDLE_SECONDS)
            for _ in range(times):
                load.enter("during")
                self.times.append(self.roll(services, count))
                load.enter("between")
                time.sleep(2)
        self.reports.append(load.report)
        self.inexact += not load.ledger.exact

    def row(self) -> list[str]:
        """What it came to."""
        samples = [each for report in self.reports for each in report.samples]
        whole = Report(samples)
        idle, during = whole.phase("idle"), whole.phase("during")
        totals = sorted(each["all"] for each in self.times)

        def median(step: str) -> float:
            return statistics.median(each.get(step, 0.0) for each in self.times)

        return [
            self.name,
            ", ".join(f"{each:.1f}" for each in totals),
            f"{statistics.median(totals):.1f}",
            *(f"{median(step):.1f}" for step in COLUMNS),
            f"{len(whole.all.lost)} of {len(samples):,}" + (f", {self.inexact} ledgers wrong" if self.inexact else ""),
            f"{idle.took(50):.0f} → {during.took(50):.0f}",
            f"{idle.took(99):.0f} → {during.took(99):.0f}",
        ]


HEAD = ("design", "rollouts, s", "median", *COLUMNS, "lost", "p50 idle → during, ms", "p99 idle → during, ms")


class Invoked:
    """Rollouts by `invoke deploy`, between two versions whose images are there."""

    def __init__(self, project: Project) -> None:
        self._project, self._current = project, "b"

    def roll(self, services: Sequence[str], _: int) -> dict[str, float]:
        """Deploy the version that does not run."""
        self._current = "b" if self._current == "a" else "a"
        self.change(services, self._current)
        return stepped(self._project)

    def change(self, services: Sequence[str], name: str) -> None:
        """Make a version of these services, which are web alone or all."""
        version(self._project, name, "web/web" if services == ["web"] else "common/stack")

    def build(self, services: Sequence[str]) -> None:
        """Have the images of both versions, of which the first is deployed, and run the second."""
        self.change(services, self._current)
        deploy(self._project)


class Bench:
    """What the parts share: stacks are made when the first part asks for them."""

    def __init__(self, folder: Path, options: argparse.Namespace, made: ExitStack) -> None:
        self.folder, self.options, self._made = folder, options, made

    @cached_property
    def project(self) -> Project:
        """Our stack, deployed."""
        project = Project.bake(self.folder, project_name="Edge Bench")
        self._made.callback(project.remove)
        prepare(project, self.options.replicas)
        probed(project)
        project.set(ENVIRONMENT, ROLLOUT_STEADY_SECONDS=f"{self.options.steady:g}", POSTGRES_MAX_CONNECTIONS="500")
        version(project, "a")
        version(project, "a", "web/web")
        deploy(project)
        return project

    @contextmanager
    def kamal(self) -> Iterator[Kamal]:
        """kamal-proxy before copies of the services."""
        with Kamal(self.project, self.options.kamal_image).running() as proxy:
            yield proxy

    def rollouts(self) -> str:
        """Ours and kamal-proxy, in turn."""
        services = ["web"] if self.options.services == 1 else list(ROLLING)
        count = self.options.replicas
        with ExitStack() as stack:
            subjects = []
            if "ours" in self.options.subjects:
                invoked = Invoked(self.project)
                invoked.build(services)
                subjects.append(Subject("ours", self.project, invoked.roll))
            if "kamal" in self.options.subjects:
                proxy = stack.enter_context(self.kamal())
                proxy.start(count)
                subjects.append(Subject("kamal-proxy", proxy.project, proxy.roll, proxy.target))
            for _ in range(self.options.rounds):
                for each in subjects:
                    each.measure(services, count, self.options.rate, self.options.times)
                    print(each.row(), flush=True)
        title = f"{len(services)} × {count}, {self.options.rate:g} requests/s, steady time {self.options.steady:g} s"
        title += f", load of the machine {os.getloadavg()[1]:.1f}"
        return f"{title}\n\n{table(HEAD, [each.row() for each in subjects])}"

    def at_rest(self) -> str:
        """One of two replicas fails in some way, behind each front."""
        with self.kamal() as proxy:
            return at_rest.measure(self.project, proxy, self.options.rounds)

    def away(self) -> str:
        """The balancer or the engine's name server is away."""
        return away.measure(self.project, self.options.rounds)

    def hops(self) -> str:
        """Latency, processor and memory of each way to a service."""
        with self.kamal() as proxy:
            return hops.measure(self.project, proxy, self.options.rounds)

    def handshakes(self) -> str:
        """TLS handshakes of a client that comes back every 12 seconds."""
        return hops.handshakes(self.project)


PARTS = {
    "rollouts": Bench.rollouts,
    "at-rest": Bench.at_rest,
    "away": Bench.away,
    "hops": Bench.hops,
    "handshakes": Bench.handshakes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    image = "an image on this engine whose entrypoint is kamal-proxy"
    parser.add_argument("--kamal-image", default="bench/kamal-proxy:local", help=image)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these parts only")
    parser.add_argument("--subjects", nargs="+", choices=("ours", "kamal"), default=["ours", "kamal"])
    parser.add_argument("--rounds", type=int, default=3, help="how often each subject has its turn")
    parser.add_argument("--times", type=int, default=2, help="rollouts in one turn")
    parser.add_argument("--services", type=int, choices=(1, 4), default=1, help="how many are rolled out at once")
    parser.add_argument("--replicas", type=int, default=2, help="containers of each service")
    parser.add_argument("--rate", type=float, default=25, help="requests a second")
    parser.add_argument("--steady", type=float, default=0, help="ROLLOUT_STEADY_SECONDS")
    options = parser.parse_args()
    print(f"`python -m tests.bench.edge {' '.join(sys.argv[1:])}`", flush=True)
    # As Ctrl-C does: what is on the engine is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as made:
        bench = Bench(Path(folder), options, made)
        for name in options.only:
            print(f"\n{PARTS[name](bench)}\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
