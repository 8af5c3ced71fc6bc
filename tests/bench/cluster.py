"""Prod on a real Kubernetes of three nodes, under load: what gets lost, for how long, and whether it comes back whole.

    python -m tests.bench.cluster [--rounds 1] [--rate 8] [--only PART …] [--number 78] [--site FOLDER]

Every node is an edge; a connection that a node does not take goes to another, as a browser does with several addresses.
Half of the requests write, a round trip takes 50 ms, nothing is sent twice. While something happens to a node, a pod on
another one publishes 20 messages a second to a quorum queue. Three etcd, three RabbitMQ. The parts are `rollout`,
`control` (what Kubernetes does when it is told nothing about a rollout), `scale`, `releases` (that fail), `job`,
`full`, `drain`, `killed` and `cut`. Needs what tests/cluster needs. --site: a project that is already applied there
(its folder); otherwise one is baked, and removed afterwards.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.cluster.cluster import Cluster
from tests.cluster.lab import Lab
from tests.cluster.load import ClusterLoad
from tests.cluster.messages import Publishing
from tests.cluster.releases import BAD, declared
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
    "messages confirmed, missing",
    "took, s",
    "whole after, s",
)
# For how long a lost node is away: Kubernetes starts pods elsewhere after 40 s of silence and 15 s of patience.
AWAY_SECONDS = 75


class Step(NamedTuple):
    """What is done to a site. leader: to the node with PostgreSQL's primary, or to another; None: to no node."""

    act: Callable[[Site, str], None]
    leader: bool | None = None


def longest_gap(samples: Sequence[Sample], writes: bool) -> float:
    """Seconds from one good answer to the next, at worst, of reads or of writes."""
    ends = sorted(each.due + each.took for each in samples if bool(each.writes) == writes and not each.lost)
    return max((later - earlier for earlier, later in zip(ends, ends[1:], strict=False)), default=0.0)


def measure(site: Site, what: str, step: Step, rate: float) -> list[str]:
    """One row: what is done under load, and how long it takes until everything is there again."""
    leader = leaders_node(site)
    node = leader if step.leader else next(each for each in site.cluster.nodes() if each != leader)
    witness = next(each for each in site.cluster.nodes() if each not in {node, leader})
    with ExitStack() as stack:
        messages = stack.enter_context(Publishing(site, witness)) if step.leader is not None else None
        load = stack.enter_context(ClusterLoad(site, rate=rate))
        time.sleep(5)
        load.enter("during")
        began = time.monotonic()
        step.act(site, node)
        took = time.monotonic() - began
        load.enter("after")
        whole = site.wait_ready() + took
        time.sleep(5)
    every = load.report.all
    gaps = [f"{longest_gap(load.report.samples, writes):.1f}" for writes in (False, True)]
    book = f"{load.ledger.acknowledged:,}, {len(load.ledger.missing)}"
    sent = f"{len(messages.taken):,}, {len(messages.missing)}" if messages else "–"
    row = [what, f"{every.sent:,}", f"{len(every.lost):,}", *gaps, book, sent, f"{took:.0f}", f"{whole:.0f}"]
    print(f"| {' | '.join(row)} |", flush=True)
    return row


def roll(service: str) -> Step:
    """Replace the pods of a service, as a new release does."""

    def act(site: Site, _node: str) -> None:
        site.kubectl("rollout", "restart", f"deployment/{service}")
        site.kubectl("rollout", "status", f"deployment/{service}", "--timeout=300s")

    return Step(act)


def roll_without_care(service: str) -> Step:
    """The control: the same with a probe that asks nothing, no wait before the old ones end, and all at once."""

    def act(site: Site, _node: str) -> None:
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

    return Step(act)


def scale(service: str, *counts: int) -> Step:
    """Change the number of pods of a service, and wait each time."""

    def act(site: Site, _node: str) -> None:
        for count in counts:
            site.kubectl("scale", f"deployment/{service}", f"--replicas={count}")
            site.kubectl("rollout", "status", f"deployment/{service}", "--timeout=300s")

    return Step(act)


def release(what: str) -> Step:
    """Deploy a release that fails. Raises AssertionError when its exit code is another than it should be."""

    def act(site: Site, _node: str) -> None:
        with declared(site, BAD[what]):
            site.deploy(BAD[what].code)

    return Step(act)


def job(site: Site, _node: str) -> None:
    """Let the scheduled job run now, and wait for its end."""
    (cronjob,) = site.objects("cronjobs")
    site.kubectl("create", "job", "by-hand", f"--from=cronjob/{cronjob['metadata']['name']}")
    site.kubectl("wait", "--for=condition=complete", "job/by-hand", "--timeout=180s")
    site.kubectl("delete", "job", "by-hand")


def fill(site: Site, _node: str) -> None:
    """Fill the volume of a PostgreSQL server for a minute and a half: the primary's, as long as it never moved."""
    with site.full_volume():
        time.sleep(90)


def drain(site: Site, node: str) -> None:
    """Empty a node, and let pods onto it again."""
    site.cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s")
    site.cluster.kubectl("uncordon", node)


def lose(how: str, leader: bool) -> Step:
    """Let a node go for a while, and come back."""

    def act(site: Site, node: str) -> None:
        (site.cluster.power_off if how == "killed" else site.cluster.cut)(node)
        time.sleep(AWAY_SECONDS)
        (site.cluster.power_on if how == "killed" else site.cluster.plug)(node)
        site.cluster.wait_ready()

    return Step(act, leader)


def leaders_node(site: Site) -> str:
    """The node that carries PostgreSQL's primary."""
    return str(site.primary()["spec"]["nodeName"])


PARTS: dict[str, dict[str, Step]] = {
    "rollout": {f"rollout of {name}": roll(name) for name in ("api", "web", "auth-service")},
    "control": {"the same of api, without probes, drain and order": roll_without_care("api")},
    "scale": {"api 2 → 10 → 2": scale("api", 10, 2)},
    "releases": {f"deploy of {what} (exit code {bad.code})": release(what) for what, bad in BAD.items()},
    "job": {"a scheduled job": Step(job)},
    "full": {"volume of postgres-primary full": Step(fill)},
    "drain": {"drain of a node": Step(drain, False), "drain of the primary's node": Step(drain, True)},
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
        yield Site.at(Project(folder), cluster)
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
                for what, step in PARTS[part].items():
                    measure(site, what, step, options.rate)
                    if part == "control":
                        site.deploy()
                        site.wait_ready()


if __name__ == "__main__":
    main()
