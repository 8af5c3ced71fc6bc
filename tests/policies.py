"""What the NetworkPolicies of an export let through, evaluated without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests import connections
from tests.connections import Connection

LABEL = "app.kubernetes.io/name"

Manifest = dict[str, Any]


def template_of(manifest: Manifest) -> Manifest:
    spec = manifest.get("spec") or {}
    return (spec.get("jobTemplate") or {}).get("spec", spec).get("template") or {}


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return labels.items() >= (selector.get("matchLabels") or {}).items()


def permits(policies: list[Manifest], way: str, own: Mapping[str, str], other: Mapping[str, str], port: int) -> bool:
    """Whether the policies let a pod send to (Egress) or receive from (Ingress) another one, by their labels."""
    mine = [each for each in policies if way in each["policyTypes"] and selects(each["podSelector"], own)]
    return not mine or any(
        allows(rule, peers, other, port)
        for policy in mine
        for rule, peers in ((rule, "to" if way == "Egress" else "from") for rule in policy.get(way.lower(), []))
    )


def allows(rule: Manifest, peers: str, other: Mapping[str, str], port: int) -> bool:
    ports = [each["port"] for each in rule.get("ports", [])]
    if ports and port not in ports:
        return False
    # What another namespace or an address outside may do is not about the pods of this one.
    return peers not in rule or any(
        "podSelector" in each and "namespaceSelector" not in each and selects(each["podSelector"], other)
        for each in rule[peers]
    )


def reachable(manifests: list[Manifest]) -> frozenset[Connection]:
    """Every connection between pods that the policies let through to a port that somebody listens on."""
    policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    pods = {each["metadata"]["labels"][LABEL]: template_of(each) for each in manifests if template_of(each)}
    labels = {name: pod["metadata"]["labels"] for name, pod in pods.items()}
    matrix = connections.load()
    found = set()
    for target in pods.keys() & matrix.listens.keys():
        own_names = {name for each in pods[target]["spec"].get("hostAliases", []) for name in each["hostnames"]}
        # Bound to a name that is the pod's own loopback address: nobody else reaches it.
        alone = {
            port for port, network in matrix.bound_ports.get(target, {}).items() if f"{target}.{network}" in own_names
        }
        for port in matrix.listens[target] - alone:
            for source in pods.keys() - {target}:
                out = permits(policies, "Egress", labels[source], labels[target], port)
                if out and permits(policies, "Ingress", labels[target], labels[source], port):
                    found.add(Connection(source, target, port))
    return frozenset(found)
