"""PostgreSQL loses its primary: how long nobody can write, what is lost, and when the old primary is a standby again.

    python -m tests.bench.failover [--rounds 5] [--only PART …]

A writer in a container of the stack, with the services' own connection settings, notes every acknowledged insert; each
is looked up afterwards. A second one writes to the old primary alone from the moment it comes back: what it gets
acknowledged would be lost. The control has no synchronous standby. Needs an engine, root for loop devices, some 40
minutes and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.rollouts import table
from tests.load.run import Load
from tests.stack import failover as nodes
from tests.stack.failover import ENVIRONMENT
from tests.stack.project import Project, docker, eventually

# Longer than the lease (20 s) with the promotion, the clients and a busy machine behind it.
AWAY_SECONDS = 32
WARM_SECONDS = 4
DISK_BYTES = 800 << 20


@dataclass
class Fault:
    """Something that happens to a node, usually the primary. back: what ends it, given the container and the service;
    None when it ends by itself."""

    name: str
    strike: Callable[[Project, str], object]
    back: Callable[[Project, str, str], object] | None
    away: float = AWAY_SECONDS
    victim: str = "primary"

    @property
    def takeover(self) -> bool:
        """Whether the standby has to take over."""
        return self.away == AWAY_SECONDS


@dataclass
class Tally:
    """Rounds of one fault. outages and rejoins in seconds."""

    name: str
    outages: list[float] = field(default_factory=list)
    rejoins: list[float] = field(default_factory=list)
    acknowledged: int = 0
    lost: int = 0
    accepted: int = 0

    def row(self) -> list[str]:
        def figures(values: Sequence[float]) -> str:
            return f"{statistics.median(values):.1f} · {max(values):.1f}" if values else "–"

        return [
            self.name,
            str(len(self.outages)),
            figures(self.outages),
            f"{self.acknowledged:,} / {self.lost:,}",
            str(self.accepted),
            figures(self.rejoins),
        ]


HEAD = (
    "fault",
    "rounds",
    "outage, s: median · max",
    "acknowledged / lost",
    "old primary took",
    "standby again after, s: median · max",
)

FAULTS = {
    "killed": Fault(
        "killed, not restarted", lambda _p, node: docker("kill", node), lambda _p, node, _s: docker("start", node)
    ),
    "paused": Fault("paused", lambda _p, node: docker("pause", node), lambda _p, node, _s: docker("unpause", node)),
    "cut": Fault("cut off the network", nodes.cut, nodes.mend),
    "crashed": Fault("crashed, restarted by its policy", lambda _p, node: nodes.crash(node), None, away=20),
    "stopped": Fault(
        "`docker stop`", lambda _p, node: docker("stop", node), lambda _p, node, _s: docker("start", node), away=8
    ),
    "standby": Fault(
        "the standby killed, not restarted",
        lambda _p, node: docker("kill", node),
        lambda _p, node, _s: docker("start", node),
        away=20,
        victim="standby",
    ),
    "planned": Fault(
        "`invoke failover`", lambda project, _n: project.invoke("failover", "--env", ENVIRONMENT), None, away=3
    ),
    "full": Fault("disk full for 45 s", lambda _p, node: fill(node), lambda _p, node, _s: free(node), away=45),
    "moved": Fault(
        "disk full, then `invoke failover`",
        lambda project, node: fill_and_move(project, node),
        lambda _p, node, _s: free(node),
    ),
}


# They want disks of their own.
SMALL = ("full", "moved")


def fill_and_move(project: Project, node: str) -> None:
    """Leave no byte on the disk of the primary, and have the standby take over by hand."""
    fill(node)
    time.sleep(5)
    project.invoke("failover", "--env", ENVIRONMENT, code=None)


def fill(node: str) -> None:
    """Leave no byte on the disk of a node."""
    docker("exec", node, "sh", "-c", "cat /dev/zero > /var/lib/postgresql/.full", check=False)


def free(node: str) -> None:
    """Delete the file that fills its disk."""
    docker("exec", node, "rm", "-f", "/var/lib/postgresql/.full")


def wait(project: Project, fault: Fault, old: str) -> None:
    """Until somebody else is the primary and clients have found it, or as long as the fault is to last."""
    ends = time.monotonic() + fault.away
    while time.monotonic() < ends and (not fault.takeover or nodes.primary(project) in {"", old}):
        time.sleep(0.5)
    if fault.takeover:
        time.sleep(WARM_SECONDS)


def strike(project: Project, fault: Fault, rounds: int) -> Tally:
    """Let a fault happen to whoever is the primary, or to its standby, again and again."""
    tally = Tally(fault.name)
    for _ in range(rounds):
        nodes.settled(project)
        old = nodes.primary(project)
        victim = old if fault.victim == "primary" else nodes.standby(project)
        container = nodes.node(project, victim)
        with contextlib.ExitStack() as writers:
            writer = writers.enter_context(nodes.writing(project))
            time.sleep(WARM_SECONDS)
            began = time.time()
            fault.strike(project, container)
            wait(project, fault, old)
            tally.outages.append(writer.account().outage(began - 1, time.time()))
            if fault.back:
                direct = writers.enter_context(nodes.writing(project, hosts=f"{victim}:5432", role="any", threads=1))
                time.sleep(1)
                returned = time.monotonic()
                fault.back(project, container, victim)
                nodes.settled(project)
                tally.rejoins.append(time.monotonic() - returned)
                # Without a takeover it is still the primary, or never was one.
                if nodes.primary(project) != old:
                    tally.accepted += len(direct.stop().acknowledged)
            nodes.settled(project)
            account = writer.stop()
        tally.acknowledged += len(account.acknowledged)
        tally.lost += len(nodes.lost(project, account))
        print(tally.row(), flush=True)
    return tally


def control(project: Project, rounds: int) -> Tally:
    """The same kill without a synchronous standby: what is acknowledged and not sent yet is lost."""
    path = project.folder / "infrastructure/postgres/patroni.yml"
    text = path.read_text()
    path.write_text(
        text.replace("synchronous_mode: true", "synchronous_mode: false").replace(": 1048576", ": 104857600")
    )
    project.invoke("deploy", "--env", ENVIRONMENT, "--yes")
    tally = Tally("control: killed 2 s after its asynchronous standby was cut off")
    for _ in range(rounds):
        old, standby = nodes.primary(project), nodes.standby(project)
        container = nodes.node(project, old)
        with nodes.writing(project) as writer:
            time.sleep(WARM_SECONDS)
            # The network to the standby is away for a moment, as it may be at any time, and nobody waits for it.
            nodes.cut(project, nodes.node(project, standby))
            time.sleep(2)
            began = time.time()
            docker("kill", container)
            nodes.mend(project, nodes.node(project, standby), standby)
            time.sleep(AWAY_SECONDS)
            tally.outages.append(writer.account().outage(began - 1, time.time()))
            docker("start", container)
            eventually_streams(project)
            account = writer.stop()
        tally.acknowledged += len(account.acknowledged)
        tally.lost += len(nodes.lost(project, account))
        print(tally.row(), flush=True)
    path.write_text(text)
    project.invoke("deploy", "--env", ENVIRONMENT, "--yes")
    return tally


def eventually_streams(project: Project) -> None:
    """Wait until the standby follows, synchronously or not."""
    streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
    eventually(lambda: nodes.sql(project, streams) == "1", 120, "a standby that streams")


def over_http(project: Project, name: str, fault: Fault) -> list[str]:
    """The primary goes away under requests of users: how many fail, and how long no write or read succeeds."""
    nodes.settled(project)
    old = nodes.primary(project)
    container = nodes.node(project, old)
    with Load(project, rate=40) as load:
        time.sleep(10)
        load.enter("during")
        fault.strike(project, container)
        time.sleep(max(fault.away, 20))
        load.enter("after")
        if fault.back:
            fault.back(project, container, old)
        time.sleep(10)
    during, ended = load.report.phase("during"), max(each.due for each in load.report.samples)

    def longest(samples: list) -> float:
        # What is answered after the last one was due says nothing: there are only slow ones left.
        good = sorted(each.due + each.took for each in samples if not each.lost and each.due + each.took <= ended)
        return max((after - before for before, after in zip(good, good[1:], strict=False)), default=0)

    writes = [each for each in load.report.samples if each.writes]
    reads = [each for each in load.report.samples if not each.writes]
    nodes.settled(project)
    return [
        name,
        f"{len(load.report.samples):,}",
        f"{sum(bool(each.lost) for each in writes):,}",
        f"{sum(bool(each.lost) for each in reads):,}",
        f"{longest(writes):.1f}",
        f"{longest(reads):.1f}",
        f"{during.took(99):,.0f}",
        f"{load.ledger.acknowledged:,} / {len(load.ledger.missing)} / {len(load.ledger.doubled)}",
    ]


HTTP_HEAD = (
    "fault",
    "requests at 40/s",
    "failed writes",
    "failed reads",
    "longest without a write, s",
    "without a read, s",
    "p99 during, ms",
    "acknowledged / missing / twice",
)


def engine_restart(project: Project, command: str) -> list[str]:
    """The engine itself is restarted under requests: how long until everything is healthy, without a hand."""
    nodes.settled(project)
    with Load(project, rate=40, published=True) as load:
        time.sleep(10)
        load.enter("during")
        began = time.monotonic()
        subprocess.run(command, shell=True, check=True)
        back = time.monotonic() - began
        while project.invoke("health", "--env", ENVIRONMENT, code=None).returncode:
            assert time.monotonic() - began < 600, "not healthy within ten minutes"
            time.sleep(1)
        healthy = time.monotonic() - began
        load.enter("after")
        time.sleep(20)
    book, phases = load.ledger, [load.report.phase(name) for name in ("during", "after")]
    failed = ", ".join(f"{len(phase.lost):,} of {phase.sent:,}" for phase in phases)
    return [
        f"{back:.1f}",
        f"{healthy:.1f}",
        failed,
        f"{book.acknowledged:,} / {len(book.missing)} / {len(book.doubled)}",
    ]


def cost(project: Project) -> list[str]:
    """Memory of the PostgreSQL nodes and of what keeps them available."""
    names = [name for name in project.containers(ENVIRONMENT) if re.search("postgres-|etcd", name)]
    shown = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *names)
    used = dict(line.split()[:2] for line in shown.splitlines())
    return [", ".join(f"{re.search('postgres-[a-z]+|etcd', name)[0]} {size}" for name, size in sorted(used.items()))]


@contextlib.contextmanager
def small_disks(project: Project, folder: Path) -> Iterator[None]:
    """Disks of their own for the nodes, which can be filled without anybody else noticing."""
    devices, volumes = [], []
    for service in nodes.SERVICES:
        image = folder / f"{service}.img"
        image.touch()
        subprocess.run(["truncate", f"--size={DISK_BYTES}", image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-E", "root_owner=999:999", image], check=True)
        device = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        devices.append(device.stdout.strip())
        options = f"{{type: ext4, device: {devices[-1]}}}"
        volumes.append(f"  {service.replace('-', '_')}_data:\n    driver_opts: {options}\n")
    (project.folder / "docker-compose.disks.yml").write_text("volumes:\n" + "".join(volumes))
    project.set(ENVIRONMENT, COMPOSE_FILE=f"{project.settings(ENVIRONMENT)['COMPOSE_FILE']}:docker-compose.disks.yml")
    try:
        yield
    finally:
        project.remove()
        for device in devices:
            subprocess.run(["losetup", "--detach", device], check=False)


@contextlib.contextmanager
def deployed(failover: bool = True, disks: bool = False) -> Iterator[Project]:
    """A stack of the bench's own, and how long its deploy took."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        project = Project.bake(Path(folder), project_name="Failover Stack", organisation="Bench")
        stack.callback(project.remove)
        nodes.prepare(project, failover)
        if disks:
            stack.enter_context(small_disks(project, Path(folder)))
        project.invoke("deploy", "--env", ENVIRONMENT)
        nodes.make_table(project)
        yield project


def seconds_until_healthy(project: Project) -> float:
    """How long the data tier takes from nothing to health, in seconds."""
    project.invoke("down", "--env", ENVIRONMENT, "--volumes", "--yes")
    done = project.invoke("deploy", "--env", ENVIRONMENT)
    rows = re.findall(r"^ *([\d.]+) s  postgres-\S+ +healthy", done.stdout, re.MULTILINE)
    return max(map(float, rows))


def main() -> None:
    parts = ("engine", *FAULTS, "control", "http", "cost")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--restart", metavar="COMMAND", help="restarts the engine; needed by the part engine")
    options = parser.parse_args()
    chosen = [part for part in options.only if part in FAULTS and part not in SMALL]
    tallies: list[Tally] = []
    if chosen or {"control", "http"} & {*options.only}:
        with deployed() as project:
            tallies += [strike(project, FAULTS[part], options.rounds) for part in chosen]
            if "control" in options.only:
                tallies.append(control(project, options.rounds))
            if "http" in options.only:
                rows = [
                    over_http(project, FAULTS[part].name, FAULTS[part])
                    for part in ("planned", "crashed", "killed", "paused")
                ]
                print("\n" + table(HTTP_HEAD, rows) + "\n", flush=True)
    if "engine" in options.only and not options.restart:
        print("engine: skipped, because --restart does not say how the engine is restarted here", flush=True)
    elif "engine" in options.only:
        head = (
            "engine answers after, s",
            "all healthy after, s",
            "failed until then, and after",
            "acknowledged / missing / twice",
        )
        with deployed() as project:
            print("\n" + table(head, [engine_restart(project, options.restart)]) + "\n", flush=True)
    for part in (part for part in options.only if part in SMALL):
        with deployed(disks=True) as project:
            tallies.append(strike(project, FAULTS[part], options.rounds))
    if tallies:
        print("\n" + table(HEAD, [each.row() for each in tallies]) + "\n", flush=True)
    if "cost" in options.only:
        rows = []
        for failover in (False, True):
            with deployed(failover) as project:
                started = seconds_until_healthy(project)
                time.sleep(20)
                rows.append(["automatic failover" if failover else "plain pair", f"{started:.1f}", *cost(project)])
        print("\n" + table(("", "PostgreSQL healthy after, s", "memory"), rows) + "\n", flush=True)


if __name__ == "__main__":
    main()
