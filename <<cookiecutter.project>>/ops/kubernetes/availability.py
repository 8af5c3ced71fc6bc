"""What keeps a service up while nodes come and go: where its pods may be, and how many may be away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ops.base.environments import Environment, relative
from ops.kubernetes.values import NAME, Manifest, made, object_name
from ops.stack.model import Stack

MEMBER = "cluster.stack/member-of"
HOST = "kubernetes.io/hostname"
# The default is five minutes until the pods of a silent node are started elsewhere.
_SILENT_SECONDS = 15


def families(stack: Stack, names: Iterable[str]) -> dict[str, str]:
    """The cluster that a service is a member of, by service: parts of the data tier that run the same program of the
    same image. The first of them gives it its name; one by itself is no cluster."""
    members: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        entry: Mapping[str, Any] = stack.document["services"][name]
        if stack.services[name].data:
            program = entry.get("entrypoint") or entry.get("command") or ()
            members.setdefault((stack.services[name].image, *program[:2]), []).append(name)
    return {name: object_name(group[0]) for group in members.values() if len(group) > 1 for name in group}


class Alone(NamedTuple):
    """A part of the data tier that has one member: what its loss costs, and what to do."""

    detail: str
    remedy: str


# Of the parts that can have several members, the Compose file that gives them these, and what waits for a single one.
_SEVERAL = {
    "etcd": ("infrastructure/kubernetes/etcd-cluster.yml", "PostgreSQL's standby does not take over"),
    "rabbitmq": ("docker-compose.rabbitmq-cluster.yml", "no message is sent or delivered"),
}


def alone(env: Environment, stack: Stack, names: Sequence[str]) -> list[Alone]:
    """Parts of the data tier that have one member, so that the loss of a single node stops them."""
    clusters = families(stack, names)
    found = []
    for name in names:
        if not stack.services[name].data or name in clusters:
            continue
        file, cost = _SEVERAL.get(name, ("", "nothing takes its place"))
        found.append(
            Alone(
                f"{env.name} has one {name}: when its node dies, {cost} until {name} runs again",
                f"For three of it, add :{file} to COMPOSE_FILE in {relative(env.env_file)}: docs/kubernetes.md, The"
                " data tier"
                if file
                else "",
            )
        )
    return found


def budgets(clusters: Mapping[str, str]) -> dict[str, Manifest]:
    """One for each cluster, by its first member: a node that is drained takes one member at a time."""
    return {family: _budget(f"cluster-{family}", {MEMBER: family}) for family in dict.fromkeys(clusters.values())}


def budget(name: str) -> Manifest:
    """Of a service with several pods: one may be away."""
    return _budget(name, {NAME: name})


def _budget(name: str, selector: Mapping[str, str]) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": dict(selector)},
        # A pod that is not ready must not keep a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return made("PodDisruptionBudget", name, spec=spec)


def beside(name: str) -> Manifest:
    """Fields of a pod that must be on the node where a service's pod is."""
    rule = {"labelSelector": {"matchLabels": {NAME: name}}, "topologyKey": HOST}
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}}


def placement(name: str, family: str) -> Manifest:
    """Fields of a pod. family: the cluster that it is a member of ("": none)."""
    if family:
        # Two of three votes on one machine would be no cluster: rather one member waits for its machine.
        rule = {"labelSelector": {"matchLabels": {MEMBER: family}}, "topologyKey": HOST}
        return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": HOST,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {NAME: name}},
            }
        ]
    }


def tolerations() -> list[Manifest]:
    """How long a pod stays with a node that says nothing."""
    return [
        {
            "key": f"node.kubernetes.io/{why}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _SILENT_SECONDS,
        }
        for why in ("not-ready", "unreachable")
    ]
