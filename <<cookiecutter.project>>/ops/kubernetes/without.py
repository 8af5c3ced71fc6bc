"""What Compose says and Kubernetes cannot: every setting of a service is mapped, or named here with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ops.kubernetes import configuration, networks, workloads
from ops.kubernetes.storage import Project, exported
from ops.kubernetes.values import is_service_name
from ops.scheduler import schedule
from ops.stack import labels, pools
from ops.stack.model import Service


class Note(NamedTuple):
    """A setting of a service that has no counterpart, and why; or a service as a whole."""

    service: str
    what: str
    why: str


# What becomes something else, in the module that is named.
_MAPPED = frozenset(
    {
        *("image", "build", "entrypoint", "command", "working_dir", "environment", "hostname", "user"),  # pods
        *(
            "cap_drop",
            "cap_add",
            "security_opt",
            "read_only",
            "stop_grace_period",
            "mem_limit",
            "mem_reservation",
            "cpus",
        ),  # pods
        *("healthcheck",),  # probes
        *("volumes", "tmpfs", "shm_size", "secrets"),  # storage
        *("networks",),  # networks
        *("ports", "expose", "labels", "deploy", "scale", "restart"),  # workloads, jobs
        *("profiles", "platform", "pull_policy"),  # which services there are, and where images come from
    }
)
_WHY = {
    "logging": "the node rotates logs",
    "cpu_shares": "requests take its place: deploy.resources.reservations.cpus",
    "depends_on": "pods have no order: they wait for each other, and `invoke deploy` brings up the data first",
    "develop": "for a developer's machine",
    "ulimits": "the container runtime of the node sets them",
    "stop_signal": "a pod is stopped by the STOPSIGNAL of its image",
    "init": "process 1 of the image must reap its children",
    "extra_hosts": "write a Service of the type ExternalName, or a name in your DNS",
    "dns": "pods ask the DNS of the cluster",
    "sysctls": "the node sets them",
    "container_name": "pods have names of their own",
    "configs": "mount a folder of the project instead",
    "env_file": "",
}
_UNKNOWN = "the export does not know it"


def of(project: Project, service: Service, entry: Mapping[str, Any]) -> Iterator[Note]:
    """Everything of a service that is not exported."""
    name = service.name
    for key, value in entry.items():
        if key not in _MAPPED and value not in (None, "", [], {}, False) and (why := _WHY.get(key, _UNKNOWN)):
            yield Note(name, key, why)
    yield from _limits(name, entry)
    yield from _security(name, entry)
    yield from _mounts(project, name, entry)
    yield from _ports(name, entry)
    yield from _labels(service)
    yield from _aliases(service, entry)
    if not str(entry.get("user") or "").partition(":")[0].isdigit():
        yield Note(
            name,
            "no user by number",
            "its image must name one, and not root; volumes belong to root unless it is said here",
        )


def _limits(name: str, entry: Mapping[str, Any]) -> Iterator[Note]:
    deploy: Mapping[str, Any] = entry.get("deploy") or {}
    resources: Mapping[str, Any] = deploy.get("resources") or {}
    if (resources.get("limits") or {}).get("pids"):
        yield Note(name, "limits.pids", "the kubelet sets it (podPidsLimit)")
    for key, value in deploy.items():
        if key not in {"replicas", "resources"} and value:
            yield Note(name, f"deploy.{key}", _UNKNOWN)


def _security(name: str, entry: Mapping[str, Any]) -> Iterator[Note]:
    for option in entry.get("security_opt") or ():
        if not str(option).startswith("no-new-privileges"):
            yield Note(name, f"security_opt {option}", "every pod has the default profile of its runtime")


def _mounts(project: Project, name: str, entry: Mapping[str, Any]) -> Iterator[Note]:
    for volume in entry.get("volumes") or ():
        if volume["type"] == "bind" and not exported(project, volume):
            yield Note(name, f"the mount of {volume['source']}", "a path of this machine")
        elif volume["type"] == "bind":
            yield from _unversioned(project, name, Path(volume["source"]))
        elif volume["type"] not in {"volume", "tmpfs"}:
            yield Note(name, f"a mount of the type {volume['type']}", _UNKNOWN)


def _unversioned(project: Project, name: str, source: Path) -> Iterator[Note]:
    if source.is_relative_to(project.secrets):
        return
    for path in configuration.unversioned(project.root, source):
        yield Note(name, f"the file {path.relative_to(project.root).as_posix()}", "git ignores it (.gitignore)")


def _ports(name: str, entry: Mapping[str, Any]) -> Iterator[Note]:
    public = workloads.published(entry)
    for port in entry.get("ports") or ():
        if port.get("protocol", "tcp") != "tcp":
            yield Note(name, f"port {port.get('published')}/{port['protocol']}", "nodes take TCP only")
        elif port not in public:
            yield Note(name, f"port {port.get('published')} of this machine", "kubectl port-forward")


def _aliases(service: Service, entry: Mapping[str, Any]) -> Iterator[Note]:
    for alias in networks.aliases(entry):
        if "." in alias and labels.PORT not in service.labels:
            yield Note(service.name, f"the name {alias}", "no Service can be called that: it leads to the pod itself")
        elif "." not in alias and not is_service_name(alias):
            yield Note(service.name, f"the name {alias}", "no Service can be called that")


def _labels(service: Service) -> Iterator[Note]:
    said = service.labels
    if labels.AFFINITY in said:
        yield Note(service.name, labels.AFFINITY, "a Service chooses any pod")
    if labels.SMOKE in said:
        yield Note(service.name, labels.SMOKE, "a Deployment knows readiness only")
    if said.get(f"{labels.SCHEDULE}.overlap") == schedule.WAIT:
        yield Note(service.name, f"{labels.SCHEDULE}.overlap: wait", "a run that would overlap waits for the next time")
    if labels.PORT in said and said.get(labels.READY) == pools.HEALTHCHECK and not service.has_health:
        yield Note(service.name, labels.READY, "the health check of an image is not seen: pods are ready as they start")


def lines(notes: Iterable[Note]) -> list[str]:
    """One line for each setting and reason, with the services that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        found.setdefault((note.what, note.why), []).append(note.service)
    return [f"{what} ({', '.join(services)}): {why}" for (what, why), services in sorted(found.items())]
