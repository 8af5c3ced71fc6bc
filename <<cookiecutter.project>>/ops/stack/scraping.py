"""Where the metrics of a service are, as the label `ops.metrics` says: "/metrics" (on `ops.port`) or "9100/metrics"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ops.base.errors import USAGE, OpsError
from ops.stack.labels import PORT
from ops.stack.model import Stack

METRICS = "ops.metrics"
# The network in which Prometheus reaches the services, as the Compose files call it.
NETWORK = "scrape"

_FORM = re.compile(r"(?P<port>[0-9]{0,5})(?P<path>/[A-Za-z0-9._~/-]*)")


@dataclass(frozen=True)
class Target:
    """The metrics page that every container of a service has. replicas: how many there must be."""

    service: str
    port: int
    path: str
    replicas: int


def declared(stack: Stack) -> dict[str, Target]:
    """Targets by service. Raises OpsError (USAGE) for a label that does not parse, and for a service that Prometheus
    could not reach."""
    entries: Mapping[str, Any] = stack.document.get("services") or {}
    return {
        name: _target(name, entries[name], service.replicas)
        for name, service in stack.services.items()
        if METRICS in (entries.get(name, {}).get("labels") or {})
    }


def _target(name: str, entry: Mapping[str, Any], replicas: int) -> Target:
    text = str(entry["labels"][METRICS]).strip()
    match = _FORM.fullmatch(text)
    port = (match["port"] if match else "") or str(entry["labels"].get(PORT, "")).strip()
    if not match or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        why = "it must be a path, such as /metrics, or a port and a path, such as 9100/metrics"
        if match and not port:
            why = f"{name} has no {PORT}, so write the port before the path, such as 9100{text}"
        raise OpsError(f'The Compose files: label {METRICS} of {name} is "{text}"; {why}.', "Correct it.", USAGE)
    if NETWORK not in (entry.get("networks") or {}):
        raise OpsError(
            f"The Compose files: {name} has the label {METRICS}, but is not in the network {NETWORK}, where Prometheus"
            " reads metrics.",
            f"Add {NETWORK} to its networks, or remove the label.",
            USAGE,
        )
    return Target(name, int(port), match["path"], replicas)
