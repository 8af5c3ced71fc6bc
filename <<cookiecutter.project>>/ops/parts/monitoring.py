"""The health of monitoring: its pages answer, and which alerts fire."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

from ops.parts.probes import PROBE_SECONDS, Check, Probe, Seen

TITLE = "Monitoring"
# The services that publish a port on this machine: setting of the port, path.
_PAGES = {
    "prometheus": ("PROMETHEUS_PORT", "/-/ready"),
    "alertmanager": ("ALERTMANAGER_PORT", "/-/ready"),
    "grafana": ("GRAFANA_PORT", "/api/health"),
    "kibana": ("KIBANA_PORT", "/api/status"),
}


def probes(seen: Seen) -> Iterator[Probe]:
    """Ask the page of each part that is declared."""
    for service, (setting, path) in _PAGES.items():
        if service in seen.declared.services and (port := seen.env.number(setting, 0)):
            yield Probe("monitoring", service, lambda s=service, p=int(port), u=path: _page(s, p, u))


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _page(service: str, port: int, path: str) -> list[Check]:
    try:
        status, _ = _get(port, path)
    except (OSError, http.client.HTTPException) as error:
        return [Check("monitoring", service, "fail", f"no answer on 127.0.0.1:{port}: {error}")]
    if status != 200:
        return [Check("monitoring", service, "fail", f"{path} answers {status}")]
    if service != "prometheus":
        return [Check("monitoring", service, "ok", "ready")]
    return [judge_alerts(json.loads(_get(port, "/api/v1/alerts")[1]))]


def judge_alerts(answer: dict[str, Any]) -> Check:
    """Prometheus is ready; alerts that fire are worth a look. Watchdog always fires."""
    firing = {
        alert["labels"]["alertname"]
        for alert in answer["data"]["alerts"]
        if alert["state"] == "firing" and alert["labels"]["alertname"] != "Watchdog"
    }
    if firing:
        return Check("monitoring", "prometheus", "warn", f"alerts: {', '.join(sorted(firing))}")
    return Check("monitoring", "prometheus", "ok", "ready, no alerts")
