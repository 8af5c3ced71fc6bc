"""How the cluster sees that a container is ready, and that it is stuck.

A health check of Compose says whether requests can be sent: it becomes the readiness probe. It never becomes the
liveness probe, which restarts a container: a service that waits for its database would be restarted for as long as that
is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.kubernetes.values import Manifest, plain, whole_seconds
from ops.parts import readiness
from ops.stack import labels, pools
from ops.stack.pools import Pool

# A path or a port costs nothing to ask; a command starts a process.
_ASK_SECONDS = 5
_COMMAND_SECONDS = 10
_TIMEOUT_SECONDS = 5
# How long a service may take until it first answers, however short its start_period is: a new node pulls and compiles.
_START_SECONDS = 120


def of(entry: Mapping[str, Any], pool: Pool | None) -> Manifest:
    """The probes of a service's container, by their field."""
    found: Manifest = {}
    health: Mapping[str, Any] = entry.get("healthcheck") or {}
    command = [plain(word) for word in readiness.command(health)]
    if pool and pool.ready != pools.HEALTHCHECK:
        ask = _ask(pool.port, pool.path)
        found["readinessProbe"] = {
            **ask,
            "periodSeconds": _ASK_SECONDS,
            "timeoutSeconds": _TIMEOUT_SECONDS,
            "failureThreshold": 2,
        }
    elif command:
        found["readinessProbe"] = {
            "exec": {"command": command},
            "periodSeconds": min(_COMMAND_SECONDS, whole_seconds(health.get("interval", "30s"))),
            "timeoutSeconds": whole_seconds(health.get("timeout", "30s")),
            "failureThreshold": int(health.get("retries", 3)),
        }
    if live := str((entry.get("labels") or {}).get(labels.LIVE, "")):
        port, path = live_address(live, pool)
        ask = {**_ask(port, path), "timeoutSeconds": _TIMEOUT_SECONDS}
        found["livenessProbe"] = {**ask, "periodSeconds": 10, "failureThreshold": 6}
        # Only where a liveness probe would be too early: one that fails kills as well, and the first copy of a large
        # database takes its time.
        allowed = max(_START_SECONDS, whole_seconds(health.get("start_period", "0s")))
        found["startupProbe"] = {**ask, "periodSeconds": 2, "failureThreshold": allowed // 2}
    return found


def live_address(said: str, pool: Pool | None) -> tuple[int, str]:
    """Port and path of the label ops.live: "/health/live" on ops.port, or "8000/health/live"."""
    port, _, rest = said.partition("/")
    return (int(port) if port else pool.port if pool else 0), f"/{rest}"


def _ask(port: int, path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": port}} if path else {"tcpSocket": {"port": port}}
