"""A service as the objects that run it: what makes its pods, the names under which others reach them, its claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.kubernetes import availability, jobs, networks, storage
from ops.kubernetes import template as pods
from ops.kubernetes.storage import Claims, Files
from ops.kubernetes.values import MANAGED_BY, MANAGER, NAME, Manifest, is_service_name, made
from ops.stack import labels
from ops.stack.model import Service
from ops.stack.pools import Pool

# What a service is to the stack, in the order in which a deploy brings it up.
DATA, MIGRATION, JOB, EDGE, SERVICE = "data", "migration", "job", "edge", "service"
# One more than wanted for a moment, never one less.
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
# How long a new pod must stay ready before the next is replaced.
_STEADY_SECONDS = 5


def component(service: Service) -> str:
    """What a service is to the stack."""
    if service.job == labels.MIGRATION:
        return MIGRATION
    if service.one_shot:
        return JOB
    if service.data:
        return DATA
    return EDGE if _everywhere(service) else SERVICE


def _everywhere(service: Service) -> bool:
    """The edge, which visitors reach at every node."""
    return not service.own and bool(service.ports)


def of(
    service: Service,
    entry: Mapping[str, Any],
    files: Files,
    pool: Pool | None,
    family: str,
    claims: Claims,
    shared: set[str],
) -> list[Manifest]:
    """The objects of a service. family: the cluster that it is a member of; shared: volumes that several pods use."""
    what = component(service)
    pod = pods.template(service, entry, what, files, pool, family)
    _use_claims(pod, files, what)
    account = made("ServiceAccount", service.name, service.name, what, automountServiceAccountToken=False)
    found = [account, *_claims(files, claims, shared, what), *_services(service, entry, what, pool)]
    if service.one_shot:
        return [*found, _job(service, what, pod)]
    if what == SERVICE and service.replicas > 1:
        found.append(availability.budget(service.name))
    return [*found, _workload(service, what, pod, files, claims)]


def _claims(files: Files, claims: Claims, shared: set[str], what: str) -> Iterator[Manifest]:
    """Claims that are made by themselves; a member of the data tier brings its own."""
    if what != DATA:
        yield from storage.claims(claims, files.claimed, shared)


def _job(service: Service, what: str, pod: Manifest) -> Manifest:
    if what == MIGRATION:
        return jobs.migration(service.name, what, pod)
    return jobs.scheduled(service.name, what, pod, service.schedule)


def _workload(service: Service, what: str, pod: Manifest, files: Files, claims: Claims) -> Manifest:
    selector = {"matchLabels": {NAME: service.name}}
    spec: Manifest = {"selector": selector, "template": pod}
    if what == DATA:
        own = [
            {"metadata": {"name": name, "labels": {MANAGED_BY: MANAGER}}, "spec": claims.spec(volume, False)}
            for volume, name in files.claimed.items()
        ]
        spec = {"serviceName": service.name, "replicas": service.replicas, **spec}
        if own:
            spec["volumeClaimTemplates"] = own
        return made("StatefulSet", service.name, service.name, what, spec=spec)
    spec["minReadySeconds"] = _STEADY_SECONDS
    if what == EDGE:
        # Traffic is taken by the node that it comes to, which keeps the client's address: so every node needs one.
        del pod["spec"]["topologySpreadConstraints"], pod["spec"]["tolerations"]
        return made("DaemonSet", service.name, service.name, what, spec={"updateStrategy": _ROLLING, **spec})
    restarts = service.labels.get(labels.ROLLOUT) == labels.RESTART
    strategy = {"type": "Recreate"} if restarts else _ROLLING
    spec = {"replicas": service.replicas, "revisionHistoryLimit": 5, "strategy": strategy, **spec}
    return made("Deployment", service.name, service.name, what, spec=spec)


def _use_claims(pod: Manifest, files: Files, what: str) -> None:
    """Let a pod mount the claims that are made by themselves."""
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in files.claimed.values()]
    if volumes and what != DATA:
        pod["spec"]["volumes"] = [*volumes, *pod["spec"].get("volumes", [])]


def _services(service: Service, entry: Mapping[str, Any], what: str, pool: Pool | None) -> Iterator[Manifest]:
    """The names of a service, as Compose knows them: its own, and further ones without a dot."""
    if service.one_shot:
        return
    ports = [
        {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}
        for name, number in pods.ports(service, entry, pool).items()
    ]
    names = dict.fromkeys((service.name, *filter(is_service_name, networks.aliases(entry))))
    for name in names:
        spec: Manifest = {"selector": {NAME: service.name}}
        if what == DATA:
            # To the pod itself, and before it is ready: members of a cluster must find each other to become ready.
            spec |= {"clusterIP": "None", "publishNotReadyAddresses": True}
        elif not ports:
            spec["clusterIP"] = "None"
        if ports:
            spec["ports"] = ports
        yield made("Service", name, service.name, what, spec=spec)


def public(service: Service, entry: Mapping[str, Any], kind: str) -> Iterator[Manifest]:
    """The Service through which the world reaches published ports. kind: NodePort, LoadBalancer, or ClusterIP behind a
    Gateway."""
    ports = [
        {
            "name": f"port-{each['published']}",
            "port": int(each["published"]),
            "targetPort": each["target"],
            "protocol": "TCP",
        }
        for each in published(entry)
    ]
    if ports:
        spec: Manifest = {"type": kind, "selector": {NAME: service.name}, "ports": ports}
        if kind != "ClusterIP":
            # The client's address is kept, and no second node is in the way.
            spec["externalTrafficPolicy"] = "Local"
        yield made("Service", f"{service.name}-public", service.name, component(service), spec=spec)


def published(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The TCP ports that a service publishes to others than this machine."""
    return [
        each
        for each in entry.get("ports") or ()
        if each.get("protocol", "tcp") == "tcp"
        and str(each.get("published", "")).isdigit()
        and not str(each.get("host_ip", "")).startswith(("127.", "::1"))
    ]
