"""A service as a pod: one container, that may do what it may do on one host, and no more than the *restricted* pod
security standard allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.base.errors import USAGE, OpsError
from ops.kubernetes import availability, networks, probes
from ops.kubernetes.storage import Files
from ops.kubernetes.values import (
    COMPONENT,
    MANAGED_BY,
    MANAGER,
    NAME,
    Manifest,
    cpus,
    is_service_name,
    literal,
    quantity,
    whole_seconds,
    without_empty,
)
from ops.stack import labels
from ops.stack.model import Service
from ops.stack.pools import Pool

# Until every node knows that a pod is leaving. It takes requests meanwhile.
DRAIN_SECONDS = 5
# What Compose gives a container to stop.
_STOP = "10s"
# Of what a container may use, the part that is set aside for it.
_MEMORY_SHARE = 4
_CPU_REQUEST = "20m"
# The one capability that the restricted standard lets a container have.
_ALLOWED = frozenset({"NET_BIND_SERVICE"})


def refuse(service: Service, entry: Mapping[str, Any]) -> None:
    """Raise OpsError (USAGE) for a service that no cluster with the restricted standard would run, or whose name it
    would not take."""
    if not is_service_name(service.name):
        raise OpsError(
            f'A service cannot be called "{service.name}" in a cluster.',
            "Use up to 52 characters of a-z, 0-9 and -, with a letter first. Or leave it out: the label"
            f" {labels.OMIT} with the reason.",
            USAGE,
        )
    for wrong, remedy in _forbidden(entry):
        raise OpsError(
            f"{service.name} {wrong}, which the restricted pod security standard forbids.",
            f"{remedy} Or leave it out: the label {labels.OMIT} with the reason.",
            USAGE,
        )


def _forbidden(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    user = str(entry.get("user") or "")
    if user.partition(":")[0] in {"0", "root"}:
        yield "runs as root", "Give it a user of its own, such as user: 10001:10001."
    if more := [each for each in entry.get("cap_add") or () if each.removeprefix("CAP_") not in _ALLOWED]:
        yield f"adds the capabilities {', '.join(more)}", "Take them out."
    for key in ("privileged", "devices", "pid", "ipc", "network_mode"):
        if entry.get(key):
            yield f"has {key}", "Take it out."


def template(
    service: Service, entry: Mapping[str, Any], component: str, files: Files, pool: Pool | None, family: str = ""
) -> Manifest:
    """The pod template. component: what it is to the stack; pool: how it takes requests; family: the cluster that it is
    a member of."""
    drains = _drains(service, pool)
    spec: Manifest = {
        "serviceAccountName": service.name,
        "automountServiceAccountToken": False,
        # Docker-like variables of every Service would end up in the environment.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": whole_seconds(entry.get("stop_grace_period", _STOP)) + drains,
        "securityContext": _security(entry),
        "containers": [_container(service, entry, files, pool, drains)],
        "volumes": files.volumes,
    }
    if own := _own_names(entry):
        # A name with a dot cannot be a Service's. A program listens on it to be reached from one network only; in a
        # pod that is the pod itself.
        spec["hostAliases"] = [{"ip": "127.0.0.1", "hostnames": own}]
    if service.one_shot:
        spec["restartPolicy"] = "Never"
        if name := service.labels.get(labels.BESIDE):
            spec.update(availability.beside(name))
    else:
        spec.update(availability.placement(service.name, family))
        spec["tolerations"] = availability.tolerations()
    found = {NAME: service.name, COMPONENT: component, MANAGED_BY: MANAGER, **networks.joined(entry)}
    if family:
        found[availability.MEMBER] = family
    return {"metadata": {"labels": found}, "spec": without_empty(spec)}


def _drains(service: Service, pool: Pool | None) -> int:
    """For how many seconds a pod that is leaving goes on before it is told to stop; 0 when it takes no requests."""
    said = service.labels.get(labels.DRAIN, "")
    return max(DRAIN_SECONDS, int(said) if said.isdigit() else 0) if pool or service.ports else 0


def _own_names(entry: Mapping[str, Any]) -> list[str]:
    served = str((entry.get("labels") or {}).get(labels.PORT, ""))
    return sorted({alias for alias in networks.aliases(entry) if "." in alias and not served})


def _container(service: Service, entry: Mapping[str, Any], files: Files, pool: Pool | None, drains: int) -> Manifest:
    container: Manifest = {
        "name": service.name,
        "image": service.image,
        "command": [literal(word) for word in entry.get("entrypoint") or ()],
        "args": [literal(word) for word in entry.get("command") or ()],
        "workingDir": entry.get("working_dir"),
        "env": environment(entry),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in ports(service, entry, pool).items()
        ],
        "resources": resources(entry),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": bool(entry.get("read_only")),
            "capabilities": without_empty({"drop": ["ALL"], "add": list(entry.get("cap_add") or ())}),
        },
        "volumeMounts": files.mounts,
        **probes.of(entry, pool),
    }
    if drains:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": drains}}}
    return without_empty(container)


def environment(entry: Mapping[str, Any]) -> list[Manifest]:
    """The variables of a container. A pod has a host name of its own making, so one that is given goes by variable."""
    values: dict[str, Any] = dict(entry.get("environment") or {})
    if name := entry.get("hostname"):
        values["HOSTNAME"] = name
    return [{"name": key, "value": literal(str(value))} for key, value in sorted(values.items()) if value is not None]


def ports(service: Service, entry: Mapping[str, Any], pool: Pool | None) -> dict[str, int]:
    """The ports that others connect to, by name: that of requests, published ones, and those of `expose`."""
    found: dict[str, int] = {"requests": pool.port} if pool else {}
    published = (each["target"] for each in entry.get("ports") or () if each.get("protocol", "tcp") == "tcp")
    exposed = (str(each).partition("/") for each in entry.get("expose") or ())
    for number in (*published, *(int(port) for port, _, protocol in exposed if protocol in {"", "tcp"})):
        if number not in found.values():
            found[f"port-{number}"] = int(number)
    return found


def resources(entry: Mapping[str, Any]) -> Manifest:
    """Limits as declared; what is set aside, as reserved, or a part of the limit."""
    declared = (entry.get("deploy") or {}).get("resources") or {}
    limits, reserved = declared.get("limits") or {}, declared.get("reservations") or {}
    most = int(limits.get("memory") or entry.get("mem_limit") or 0)
    least = int(reserved.get("memory") or entry.get("mem_reservation") or 0)
    processors = limits.get("cpus") or entry.get("cpus")
    requests = {
        "cpu": cpus(reserved["cpus"]) if reserved.get("cpus") else _CPU_REQUEST,
        "memory": quantity(least or most // _MEMORY_SHARE) if least or most else None,
    }
    capped = {"cpu": cpus(processors) if processors else None, "memory": quantity(most) if most else None}
    return without_empty({"requests": without_empty(requests), "limits": without_empty(capped)})


def _security(entry: Mapping[str, Any]) -> Manifest:
    user, _, group = str(entry.get("user") or "").partition(":")
    found: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if user.isdigit():
        found["runAsUser"] = int(user)
        owner = int(group) if group.isdigit() else int(user)
        # Volumes and memory are the group's, so that the user may write to them.
        found |= {"runAsGroup": owner, "fsGroup": owner, "fsGroupChangePolicy": "OnRootMismatch"}
    return found
