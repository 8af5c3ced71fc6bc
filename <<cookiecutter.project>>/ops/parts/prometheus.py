"""Prometheus' part of what is rendered from the Compose files: what it scrapes, and how many of each there must be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ops import engine
from ops.engine import Container
from ops.parts import mounts, reloads
from ops.stack import pools, scraping
from ops.stack.model import Stack
from ops.stack.scraping import Target

SERVICE = "prometheus"
CHECK = "promtool check config /etc/prometheus/prometheus.yml"

# JSON is YAML too, and needs no rules for quotes.
_HEAD = "# Rendered from the Compose files by `invoke deploy`.\n"
_LOADED = re.compile(r"^prometheus_config_last_reload_success_timestamp_seconds (\S+)$", re.MULTILINE)
_OWN_METRICS = ["wget", "-q", "-Y", "off", "-O", "-", "http://127.0.0.1:9090/metrics"]


def render(declared: Stack) -> dict[str, str]:
    """Files by name: services.yml with scrape configurations, expected.yml with the recording rules. Raises OpsError
    (USAGE) for wrong labels."""
    targets = scraping.declared(declared)
    served = {name: declared.services[name].replicas for name in pools.declared(declared) if name in declared.services}
    return {
        "services.yml": _file({"scrape_configs": [_scrape(each) for _, each in sorted(targets.items())]}),
        "expected.yml": _file({"groups": [{"name": "expected-services", "rules": [*_expected(targets, served)]}]}),
    }


def _file(content: Mapping[str, Any]) -> str:
    return f"{_HEAD}{json.dumps(content, indent=2)}\n"


def _scrape(target: Target) -> dict[str, Any]:
    """One target a replica: every address that the service's name has is one, and none is no error."""
    return {
        "job_name": target.service,
        "metrics_path": target.path,
        "dns_sd_configs": [{"names": [target.service], "type": "A", "port": target.port, "refresh_interval": "5s"}],
        # By this label rules and dashboards tell services apart; most programs do not give it themselves.
        "metric_relabel_configs": [
            {"source_labels": ["service"], "regex": "", "target_label": "service", "replacement": target.service}
        ],
    }


def _expected(targets: Mapping[str, Target], served: Mapping[str, int]) -> Iterable[dict[str, Any]]:
    """How many replicas Prometheus must reach, and how many containers HAProxy must have in the service's pool."""
    for name, target in sorted(targets.items()):
        yield _record("stack:replicas_expected", target.replicas, {"job": name, "service": name})
    for name, replicas in sorted(served.items()):
        yield _record("stack:servers_expected", replicas, {"proxy": name, "service": name})


def _record(name: str, value: int, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"record": name, "expr": f"vector({value})", "labels": dict(labels)}


def reload(prometheus: Container) -> None:
    """Let Prometheus take its changed configuration; returns when it is at work. Raises OpsError when it is wrong:
    Prometheus then keeps working with the old one."""
    if mounts.replaced(prometheus):
        engine.docker("restart", prometheus.id)
        return
    before = _loaded(prometheus)
    reloads.take(
        prometheus, "Prometheus", f"{CHECK} >&2 && kill -HUP 1", lambda: _loaded(prometheus) not in {"", before}
    )


def _loaded(prometheus: Container) -> str:
    """When it last took a configuration, as it says itself; "" when it does not answer."""
    match = _LOADED.search(engine.exec_(prometheus.id, _OWN_METRICS, check=False).stdout)
    return match[1] if match else ""
