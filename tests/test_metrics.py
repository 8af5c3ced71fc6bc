"""Rules and dashboards ask for metrics that exist: an alert on a name that a new version changed would never fire."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from tests import metrics, template

MONITORING = template.FOLDER / "monitoring"
KNOWN = metrics.load()
SETTINGS = {
    "nginx-exporter": "NGINX_EXPORTER_IMAGE",
    "haproxy": "HAPROXY_IMAGE",
    "blackbox-exporter": "BLACKBOX_EXPORTER_IMAGE",
    "postgres-exporter": "POSTGRES_EXPORTER_IMAGE",
    "redis-exporter": "REDIS_EXPORTER_IMAGE",
    "rabbitmq": "RABBITMQ_IMAGE",
    "node-exporter": "NODE_EXPORTER_IMAGE",
    "prometheus": "PROMETHEUS_IMAGE",
    "alertmanager": "ALERTMANAGER_IMAGE",
    "otel-collector": "OTEL_COLLECTOR_IMAGE",
}
# Written by a deploy, and by start.sh of Prometheus from the environment's settings.
OF_DEPLOY = {"stack:replicas_expected", "stack:servers_expected", "stack:backup_max_age_seconds"}


def rules() -> Iterator[dict[str, Any]]:
    for path in sorted(MONITORING.glob("prometheus/rules/*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def panels() -> Iterator[tuple[str, str]]:
    """(title, expression) of every query of every dashboard."""
    for path in sorted(MONITORING.glob("grafana/dashboards/*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for inner in [panel, *panel.get("panels", [])]:
                for target in inner.get("targets", []):
                    yield inner["title"], target["expr"]


def known() -> set[str]:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return set().union(recorded, OF_DEPLOY, metrics.OF_PROMETHEUS, *(each.names for each in KNOWN.values()))


def unknown(*expressions: str) -> set[str]:
    return {name for expression in expressions for name in metrics.asked_for(expression)} - known()


@pytest.mark.parametrize("environment", template.ENVIRONMENTS)
def test_the_names_are_those_of_the_pinned_versions(environment: str) -> None:
    """Whoever pins another version makes the file anew: `python -m tests.metrics` says how."""
    settings = dotenv_values(template.FOLDER / "config" / environment / ".env")
    mirror = settings["REGISTRY_MIRROR"] or ""
    pinned = {name: str(settings[key]).removeprefix(mirror).removeprefix("library/") for name, key in SETTINGS.items()}
    assert {name: KNOWN[name].pinned for name in SETTINGS} == pinned
    lock = (template.FOLDER / "infrastructure/postgres/requirements.lock").read_text(encoding="utf-8")
    assert KNOWN["patroni"].pinned in re.findall(r"^patroni(?:\[[^]]*\])?==\S+", lock, re.MULTILINE)


def test_every_file_has_names_and_every_job_a_file() -> None:
    assert KNOWN.keys() == metrics.JOBS.keys()
    assert {name for name, content in KNOWN.items() if len(content.names) < 5} == set()
    files = [MONITORING / "prometheus/prometheus.yml", *MONITORING.glob("prometheus/parts/*.yml")]
    scraped = [job for path in files for job in yaml.safe_load(path.read_text(encoding="utf-8"))["scrape_configs"]]
    # The services of our own come from their labels.
    jobs = {job["job_name"] for job in scraped} | {*metrics.JOBS["stack"]}
    # What the other exporters say about themselves nobody asks for; Grafana cannot be had on the reference machine.
    assert jobs - {job for jobs in metrics.JOBS.values() for job in jobs} == {"exporters", "redis-exporter", "grafana"}


def test_rules_ask_for_metrics_that_exist() -> None:
    wrong = {rule.get("alert") or rule["record"]: names for rule in rules() if (names := unknown(rule["expr"]))}
    assert wrong == {}


def test_every_alert_leads_to_an_entry_of_the_runbook() -> None:
    runbook = (template.FOLDER / "docs/runbook.md").read_text(encoding="utf-8")
    entries = {f"docs/runbook.md#{name.lower()}" for name in re.findall(r"^### (\w+)$", runbook, re.MULTILINE)}
    links = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}
    assert {name: link for name, link in links.items() if link not in entries} == {}


def test_panels_ask_for_metrics_that_exist() -> None:
    asked = list(panels())
    assert len(asked) > 40
    assert {title: names for title, expression in asked if (names := unknown(expression))} == {}


def test_tests_of_rules_feed_metrics_that_exist() -> None:
    """Series made by hand under an old name would keep a dead alert green."""
    series = [
        entry["series"]
        for path in MONITORING.glob("prometheus/tests/*.yml")
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for entry in test["input_series"]
    ]
    assert len(series) > 50
    assert unknown(*series) == set()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (job) (up{job="a"} == 1) or on(job) b:c * 0', {"up", "b:c"}),
        ("predict_linear(node_x[6h], 86400) < 0 and node_x offset 2h >= 0", {"node_x"}),
        ("time() - max by (backup) (b_seconds) > on() group_left() s:age", {"b_seconds", "s:age"}),
        ("rate(a_total[$__rate_interval]) > bool 0.06", {"a_total"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    assert set(metrics.asked_for(expression)) == names


def test_a_renamed_metric_shows() -> None:
    """The control: the name that postgres_exporter had before 0.20."""
    assert unknown("pg_replication_slot_slot_is_active == 0") == {"pg_replication_slot_slot_is_active"}
