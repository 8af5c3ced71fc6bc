"""Prod on a real Kubernetes of three nodes, under load: what gets lost, for how long, and whether it comes back whole.

    python -m tests.bench.cluster [--rounds 1] [--rate 8] [--only PART …] [--number 78] [--site FOLDER]

Every node is an edge; a connection that a node does not take goes to another, as a browser does with several addresses.
Half of the requests write, a round trip takes 50 ms, nothing is sent twice. The parts are `rollout`, `control` (what
Kubernetes does when it is told nothing about a rollout), `scale`, `drain`, `killed` and `cut`. Needs what tests/cluster
needs. --site: a project that is already applied there (its folder); otherwise one is baked, and removed afterwards.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.lab import Lab
from tests.cluster.load import ClusterLoad
from tests.cluster.site import Site
from tests.load.generator import Sample
from tests.stack.project import Project

HEAD = (
    "what",
    "sent",
    "lost",
    "longest without a read, s",
    "without a write, s",
    "acknowledged, missing",
    "took, s",
    "whole after, s",
)
Action = Callable[[Site], None]


def longest_gap(samples: Sequence[Sample], writes: bool) -> float:
    """Seconds from one good answer to the next, at worst, of reads or of writes."""
    ends = sorted(each.due + each.took for each in samples if bool(each.writes) == writes and not each.lost)
    return max((later - earlier for earlier, later in zip(ends, ends[1:], strict=False)), default=0.0)


def measure(site: Site, what: str, act: Action, rate: float) -> list[str]:
    """One row: what is done under load, and how long it takes until everything is there again."""
    with ClusterLoad(site, rate=rate) as load:
        time.sleep(5)
        load.enter("during")
        began = time.monotonic()
        act(site)
        took = time.monotonic() - began
        load.enter("after")
        whole = site.wait_ready() + took
        time.sleep(5)
    every = load.report.all
    gaps = [f"{longest_gap(load.report.samples, writes):.1f}" for writes in (False, True)]
    book = f"{load.ledger.acknowledged:,}, {len(load.ledger.missing)}"
    row = [what, f"{every.sent:,}", f"{len(every.lost):,}", *gaps, book, f"{took:.0f}", f"{whole:.0f}"]
    print(f"| {' | '.join(row)} |", flush=True)
    return row


def roll(service: str) -> Action:
    """Replace the pods of a service, as a new release does."""

    def act(site: Site) -> None:
        site.kubectl("rollout", "restart", f"deployment/{service}")
        site.kubectl("rollout", "status", f"deployment/{service}", "--timeout=300s")

    return act


def roll_without_care(service: str) -> Action:
    """The control: the same with a probe that asks nothing, no wait before the old ones end, and all at once."""

    def act(site: Site) -> None:
        (found,) = (each for each in site.objects("deployments") if each["metadata"]["name"] == service)
        changed = copy.deepcopy(found["spec"])
        changed["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "100%"}}
        changed["minReadySeconds"] = 0
        changed["template"]["spec"]["terminationGracePeriodSeconds"] = 1
        for container in changed["template"]["spec"]["containers"]:
            for key in ("readinessProbe", "startupProbe", "lifecycle"):
                container.pop(key, None)
        metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "resourceVersion")}
        kind = {"apiVersion": found["apiVersion"], "kind": found["kind"]}
        site.kubectl("replace", "-f", "-", input=json.dumps({**kind, "metadata": metadata, "spec": changed}))
        site.kubectl("rollout", "status", f"deployment/{service}", "--timeout=300s")

    return act


def scale(service: str, *counts: int) -> Action:
    """Change the number of pods of a service, and wait each time."""

    def act(site: Site) -> None:
        for count in counts:
            site.kubectl("scale", f"deployment/{service}", f"--replicas={count}")
            site.kubectl("rollout", "status", f"deployment/{service}", "--timeout=300s")

    return act


def drain(site: Site) -> None:
    """Empty a node that does not carry PostgreSQL's primary, and let pods onto it again."""
    node = other_node(site)
    site.cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
    site.cluster.kubectl("uncordon", node)


def lose(how: str, leader: bool) -> Action:
    """Let a node go for a minute and a half, and come back."""

    def act(site: Site) -> None:
        node = leaders_node(site) if leader else other_node(site)
        (site.cluster.power_off if how == "killed" else site.cluster.cut)(node)
        time.sleep(90)
        (site.cluster.power_on if how == "killed" else site.cluster.plug)(node)
        site.cluster.wait_ready()

    return act


def leaders_node(site: Site) -> str:
    """The node that carries PostgreSQL's primary."""
    return str(site.primary()["spec"]["nodeName"])


def other_node(site: Site) -> str:
    """A node that does not carry it."""
    leader = leaders_node(site)
    return next(node for node in site.cluster.nodes() if node != leader)


PARTS: dict[str, dict[str, Action]] = {
    "rollout": {f"rollout of {name}": roll(name) for name in ("api", "web", "auth-service")},
    "control": {"the same of api, without probes, drain and order": roll_without_care("api")},
    "scale": {"api 2 → 10 → 2": scale("api", 10, 2)},
    "drain": {"drain of a node": drain},
    "killed": {
        "node with PostgreSQL's primary killed": lose("killed", True),
        "another node killed": lose("killed", False),
    },
    "cut": {
        "node with PostgreSQL's primary cut off": lose("cut", True),
        "another node cut off": lose("cut", False),
    },
}


@contextmanager
def a_site(number: int, folder: Path | None) -> Iterator[Site]:
    """A site that is ready on a cluster."""
    cluster = Cluster(Lab(number))
    if folder:
        yield Site(Project(folder), cluster)
        return
    with tempfile.TemporaryDirectory() as parent:
        try:
            began = time.monotonic()
            cluster.start(3)
            print(f"cluster: {time.monotonic() - began:.0f} s")
            site = Site.prepare(Path(parent), cluster)
            site.export()
            site.push()
            began = time.monotonic()
            site.deploy()
            print(f"{len(site.pods())} pods ready after {time.monotonic() - began + site.wait_ready():.0f} s")
            yield site
            site.project.remove()
        finally:
            cluster.stop()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--number", type=int, default=78)
    parser.add_argument("--site", type=Path)
    options = parser.parse_args()
    with a_site(options.number, options.site) as site:
        print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
        for _ in range(options.rounds):
            for part in options.only:
                for what, act in PARTS[part].items():
                    measure(site, what, act, options.rate)
                    if part == "control":
                        site.deploy()
                        site.wait_ready()


if __name__ == "__main__":
    main()
