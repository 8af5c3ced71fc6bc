"""A network policy engine on every node: kube-network-policies of the Kubernetes project.

The network of the nodes joins pods and asks nobody. The engine is handed the first packet of every connection by the
kernel (NFQUEUE) and judges it by the NetworkPolicies. The rules that hand it over are iptables' here: those that the
engine makes by itself need a module of nftables that not every kernel has. Only while `enforced`: it takes its share of
two processors.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster import nodes
from tests.cluster.cluster import Cluster
from tests.cluster.lab import run, wait_for
from tests.cluster.programs import Unavailable
from tests.cluster.site import Object, Site, ready
from tests.connections import Connection
from tests.policies import LABEL

NAME = "kube-network-policies"
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
QUEUE = 98
PODS = "10.244.0.0/16"
PROBE = Path(__file__).parents[1] / "stack" / "probe_ports.py"
# For a connection that is dropped; one that is let through takes milliseconds.
SECONDS = 3


@contextmanager
def enforced(cluster: Cluster) -> Iterator[None]:
    """NetworkPolicies hold meanwhile. Raises Unavailable when the engine does not start on a node."""
    cluster.apply(yaml.safe_dump_all(_rights()))
    token = cluster.kubectl("create", "token", NAME, "--namespace=kube-system").strip()
    on = [node for node in cluster.nodes() if nodes.is_on(cluster.lab, node)]
    try:
        for node in on:
            _begin(cluster, node, token)
        for node in on:
            if not wait_for(lambda node=node: _takes_packets(cluster, node), 30):
                raise Unavailable(f"no network policy engine: see {cluster.lab.logs / node}-policies.log")
            _hand_over(cluster, node, "-A")
        yield
    finally:
        for node in on:
            _hand_over(cluster, node, "-D")
            cluster.lab.end(f"{node}-policies", signal.SIGINT)


def _begin(cluster: Cluster, node: str, token: str) -> None:
    lab = cluster.lab
    authority = (lab.pki / "ca.crt").read_text(encoding="ascii")
    for file, text in (("token", token), ("ca.crt", authority)):
        run(*nodes.inside(lab, node, "sh", "-ec", f"mkdir -p {ACCOUNT}; cat > {ACCOUNT}/{file}"), input=text)
    server = (f"KUBERNETES_SERVICE_HOST={lab.server}", "KUBERNETES_SERVICE_PORT=6443")
    options = (
        f"--hostname-override={node}",
        f"--nfqueue-id={QUEUE}",
        "--disable-nri",
        "--netfilter-bug-1766-fix=false",
    )
    program = cluster.programs.bin / NAME
    lab.begin(
        f"{node}-policies", nodes.inside(lab, node, "env", *server, program, *options, "--netfilter-bug-1766-fix=false")
    )


def _hand_over(cluster: Cluster, node: str, how: str) -> None:
    """Add (-A) or delete (-D) the rules for what pods send and get. What a node says to its pods is always allowed."""
    what = ("-m", "conntrack", "--ctstate", "NEW", "-m", "addrtype", "!", "--src-type", "LOCAL")
    for side in ("-s", "-d"):
        rule = (how, "POSTROUTING", *what, side, PODS, "-j", "NFQUEUE", "--queue-num", str(QUEUE))
        run(*nodes.inside(cluster.lab, node, "iptables", "-t", "mangle", *rule), check=how == "-A")


def _takes_packets(cluster: Cluster, node: str) -> bool:
    queues = run(*nodes.inside(cluster.lab, node, "cat", "/proc/net/netfilter/nfnetlink_queue"))
    return any(line.split()[:1] == [str(QUEUE)] for line in queues.splitlines())


def _rights() -> Iterator[Object]:
    core = {"apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"]}
    policies = {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]}
    account = {"name": NAME, "namespace": "kube-system"}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    group = "rbac.authorization.k8s.io"
    yield {
        **{"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}},
        "rules": [core, policies],
    }
    yield {
        **{"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME}},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", **account}],
    }


def reachable(site: Site, listens: Mapping[str, frozenset[int]]) -> frozenset[Connection]:
    """Every connection that a program in a pod gets to a port of another service's pod. listens: ports by service."""
    pods = {pod["metadata"]["labels"][LABEL]: pod for pod in site.pods() if ready(pod)}
    places = {name: pod["status"]["podIP"] for name, pod in pods.items()}
    every = [(name, port) for name in sorted(places.keys() & listens.keys()) for port in sorted(listens[name])]

    def of(source: str) -> set[Connection]:
        targets = {(places[name], port): Connection(source, name, port) for name, port in every if name != source}
        return {targets[address, int(port)] for address, port in _connected(pods[source], list(targets))}

    with ThreadPoolExecutor(8) as pool:
        return frozenset().union(*pool.map(of, pods))


def _connected(pod: Object, targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of some addresses that take a connection out of the network of a pod."""
    enter = ["nsenter", "-t", str(_process(pod)), "-n", "--"]
    done = subprocess.run(
        [*enter, sys.executable, str(PROBE), "connect", str(SECONDS)],
        input=json.dumps(targets),
        capture_output=True,
        text=True,
        check=True,
    )
    return [(address, port) for address, port in json.loads(done.stdout)]


def _process(pod: Object) -> int:
    """A process of a pod, as this machine counts them."""
    group = f"/pod{pod['metadata']['uid']}/"
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if group in path.read_text(encoding="utf-8"):
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError(f"no process of {pod['metadata']['name']} is on this machine")
