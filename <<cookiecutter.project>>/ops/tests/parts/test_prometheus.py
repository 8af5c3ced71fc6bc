"""What Prometheus is told about the services, and how it takes it."""

from __future__ import annotations

import json

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.engine import Completed
from ops.parts import prometheus
from ops.stack.model import Service, Stack


def entry(name: str, **labels: str) -> dict[str, object]:
    return {"labels": labels, "networks": {"scrape": None, "serving": {"aliases": [f"{name}.serving"]}}}


SHOP = {
    "shop": entry("shop", **{"ops.port": "3000", "ops.metrics": "/metrics"}),
    "mailer": entry("mailer", **{"ops.metrics": "9100/stats"}),
    "site": entry("site", **{"ops.port": "80"}),
    "quiet": entry("quiet"),
}
REPLICAS = {"shop": 3, "mailer": 1, "site": 2, "quiet": 1}
DECLARED = Stack(
    "acme-dev", {name: Service(name, "x", replicas=count) for name, count in REPLICAS.items()}, {"services": SHOP}
)


def content(name: str) -> dict:
    head, _, text = prometheus.render(DECLARED)[name].partition("\n")
    assert head == "# Rendered from the Compose files by `invoke deploy`."
    return json.loads(text)


def test_each_service_with_metrics_is_a_job_of_its_name() -> None:
    jobs = content("services.yml")["scrape_configs"]
    assert [(job["job_name"], job["metrics_path"]) for job in jobs] == [("mailer", "/stats"), ("shop", "/metrics")]
    assert jobs[1]["dns_sd_configs"] == [{"names": ["shop"], "type": "A", "port": 3000, "refresh_interval": "5s"}]


def test_how_many_there_must_be() -> None:
    """Of those with metrics Prometheus counts the targets, of those that take requests the servers in HAProxy."""
    rules = content("expected.yml")["groups"][0]["rules"]
    found = {(rule["record"], rule["labels"].get("job") or rule["labels"]["proxy"]): rule["expr"] for rule in rules}
    assert found == {
        ("stack:replicas_expected", "mailer"): "vector(1)",
        ("stack:replicas_expected", "shop"): "vector(3)",
        ("stack:servers_expected", "shop"): "vector(3)",
        ("stack:servers_expected", "site"): "vector(2)",
    }
    assert {rule["labels"]["service"] for rule in rules} == {"mailer", "shop", "site"}


def test_nothing_to_scrape_is_still_a_file() -> None:
    """A former one is overwritten, and does not go on."""
    text = prometheus.render(Stack("a", {}, {}))["services.yml"]
    assert json.loads(text.partition("\n")[2]) == {"scrape_configs": []}


PAGE = "# HELP x\nprometheus_config_last_reload_success_timestamp_seconds {}\nprometheus_build_info 1\n"


def test_a_reload_is_over_when_prometheus_says_so(make_container, monkeypatch) -> None:
    times, lines = iter(["1.5e+09", "1.5e+09", "1.6e+09"]), []

    def exec_(_container: str, argv: list[str], **_options: object) -> Completed:
        lines.append(argv[0])
        return Completed((), 0, "" if argv[0] == "sh" else PAGE.format(next(times)), "")

    monkeypatch.setattr(engine, "exec_", exec_)
    prometheus.reload(make_container("prometheus"))
    assert lines == ["wget", "sh", "wget", "wget"]


def test_a_configuration_that_promtool_refuses(make_container, monkeypatch) -> None:
    def exec_(_container: str, argv: list[str], **_options: object) -> Completed:
        return Completed((), int(argv[0] == "sh"), PAGE.format("1"), "FAILED: parsing YAML file\n")

    monkeypatch.setattr(engine, "exec_", exec_)
    with pytest.raises(OpsError, match="Prometheus refuses its new configuration and keeps the old one:\n  FAILED"):
        prometheus.reload(make_container("prometheus"))
