"""The health of monitoring: its pages answer, Grafana gets its data, and which alerts fire."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ops.base.environments import Environment
from ops.parts.probes import PROBE_SECONDS, Check, Probe, Seen
from ops.secrets import files

TITLE = "Monitoring"
# The pages that monitoring-proxy publishes on this machine: setting of the port, path.
_PAGES = {
    "prometheus": ("PROMETHEUS_PORT", "/-/ready"),
    "alertmanager": ("ALERTMANAGER_PORT", "/-/ready"),
    "grafana": ("GRAFANA_PORT", "/api/health"),
    "kibana": ("KIBANA_PORT", "/api/status"),
}
# Grafana's own look at where its panels get their data: the uid is that of monitoring/grafana/provisioning.
_DATA_SOURCE = "/api/datasources/uid/prometheus/health"


def probes(seen: Seen) -> Iterator[Probe]:
    """Ask the page of each part that is declared."""
    for service, (setting, path) in _PAGES.items():
        if service in seen.declared.services and (port := seen.env.number(setting, 0)):
            yield Probe("monitoring", service, partial(_page, seen.env, service, int(port), path))


def _get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _page(env: Environment, service: str, port: int, path: str) -> list[Check]:
    try:
        status, _ = _get(port, path)
    except (OSError, http.client.HTTPException) as error:
        return [Check("monitoring", service, "fail", f"no answer on 127.0.0.1:{port}: {error}")]
    if status != 200:
        return [Check("monitoring", service, "fail", f"{path} answers {status}")]
    if service == "prometheus":
        return [judge_alerts(json.loads(_get(port, "/api/v1/alerts")[1]))]
    if service == "grafana":
        login = base64.b64encode(f"admin:{files.read(env, 'GRAFANA_PASSWORD')}".encode()).decode()
        return [judge_data_source(*_get(port, _DATA_SOURCE, {"Authorization": f"Basic {login}"}))]
    return [Check("monitoring", service, "ok", "ready")]


def judge_data_source(status: int, answer: bytes) -> Check:
    """Grafana is ready; without its data source it shows empty panels and no error of its own."""
    if status == 200:
        return Check("monitoring", "grafana", "ok", "ready, its data source answers")
    if status in (401, 403):
        return Check("monitoring", "grafana", "warn", "GRAFANA_PASSWORD is not the password that Grafana has")
    try:
        said = json.loads(answer)["message"]
    except (ValueError, TypeError, KeyError):
        said = f"status {status}"
    return Check("monitoring", "grafana", "fail", f"its data source Prometheus does not answer: {said}")


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
