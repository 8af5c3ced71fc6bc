"""How values of Compose are written in Kubernetes: names, times, amounts, text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ops.stack.model import seconds

# An object of the API, as it is written to YAML.
Manifest = dict[str, Any]

NAME = "app.kubernetes.io/name"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
MANAGER = "invoke"

_AMOUNT = re.compile(r"(?P<number>\d+)(?P<unit>[bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


# Of a Service, and short enough for a Job to add ten digits.
_SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_service_name(text: str) -> bool:
    """Whether a service of Compose can be called the same in a cluster."""
    return bool(_SERVICE.fullmatch(text))


def is_namespace(text: str) -> bool:
    """Whether a namespace can have that name."""
    return bool(_NAMESPACE.fullmatch(text))


def object_name(text: str) -> str:
    """A name as Kubernetes accepts it: POSTGRES_PASSWORD -> postgres-password."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def digest(value: object) -> str:
    """Ten digits that stand for a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def plain(text: str) -> str:
    """A text of the resolved configuration, in which Compose doubles every dollar sign."""
    return text.replace("$$", "$")


def literal(text: str) -> str:
    """A text for a command, its arguments or an environment variable, where Kubernetes would replace $(NAME) and read
    $$ as one dollar sign."""
    return re.sub(r"\$(?=[$(])", "$$", plain(text))


def whole_seconds(text: str) -> int:
    """Seconds of a Compose duration, at least one."""
    return max(1, round(seconds(text)))


def amount(text: str | int) -> int:
    """Bytes of a Compose size: "64m" -> 67108864."""
    match = _AMOUNT.fullmatch(str(text))
    return int(match["number"]) * _UNITS[match["unit"].lower()] if match else 0


def quantity(size: int) -> str:
    """Bytes as people write them to Kubernetes: 268435456 -> "256Mi"."""
    for unit, factor in (("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def cpus(count: float | str) -> str:
    """Processors: 0.5 -> "500m", 2 -> "2"."""
    thousandths = round(float(count) * 1000)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def made(kind: str, name: str, service: str = "", component: str = "", **body: Any) -> Manifest:
    """An object with its labels. body: what follows the metadata (spec, data, …)."""
    labels = {NAME: service, COMPONENT: component} if service else {}
    version = _VERSIONS.get(kind, "v1")
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": {**labels, MANAGED_BY: MANAGER}},
        **body,
    }


_VERSIONS = {
    "CronJob": "batch/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Gateway": "gateway.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "Job": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "StatefulSet": "apps/v1",
    "TLSRoute": "gateway.networking.k8s.io/v1",
}


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only what says something: no None, no empty text, list or mapping."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}


def templates(manifest: Manifest) -> list[Manifest]:
    """What a workload makes other objects of: its pod template, that of its jobs, and those of its volume claims."""
    pod, spec = pod_template(manifest), manifest.get("spec") or {}
    job: Manifest = spec.get("jobTemplate") or {}
    claims: list[Manifest] = spec.get("volumeClaimTemplates") or []
    return [*([pod] if pod else []), *([job] if job else []), *claims]


def pod_template(manifest: Manifest) -> Manifest:
    """The pod template of a workload; empty for everything else."""
    spec: Manifest = manifest.get("spec") or {}
    found: Manifest = (spec.get("jobTemplate") or {}).get("spec", spec).get("template") or {}
    return found
