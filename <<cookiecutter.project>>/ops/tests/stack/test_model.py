"""The declared stack, from the document that Compose prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import USAGE
from ops.stack import model
from ops.stack.model import Mount, Port, Service

DOCUMENT = {
    "name": "acme-dev",
    "secrets": {"S": {"file": "/p/config/dev/secrets/S"}, "E": {"environment": "E"}},
    "services": {
        "postgres": {
            "image": "postgres:18",
            "labels": {"ops.tier": "data"},
            "networks": {"database": None},
            "secrets": [{"source": "S", "target": "/run/secrets/S"}, {"source": "E", "target": "/run/secrets/E"}],
            "volumes": [
                {"type": "volume", "source": "data", "target": "/var/lib/postgresql"},
                {"type": "bind", "source": "/p/infrastructure/postgres", "target": "/etc/postgresql"},
                {"type": "tmpfs", "target": "/tmp"},
            ],
            "deploy": {"resources": {"limits": {"memory": "536870912"}}},
            "healthcheck": {"test": ["CMD", "true"], "interval": "1m30s", "timeout": "5s"},
        },
        "migrate": {
            "image": "acme/migrate:current",
            "build": {"context": "/p/services"},
            "labels": {"ops.job": "migration"},
            "restart": "no",
            "networks": {"database": None},
            "depends_on": {"postgres": {"condition": "service_healthy"}},
            "healthcheck": {"disable": True},
        },
        "web": {
            "image": "acme/web:current",
            "build": {"context": "/p/services"},
            "networks": {"backend": None, "database": None},
            "depends_on": {"migrate": {}},
            "deploy": {"replicas": 3},
        },
        "nginx": {
            "image": "nginx:1",
            "labels": {"ops.part": "edge"},
            "networks": {"backend": None},
            "ports": [
                {"target": 8080, "published": "80", "host_ip": "0.0.0.0", "protocol": "tcp"},
                {"target": 9090, "protocol": "tcp"},
            ],
        },
        "exporter": {
            "image": "exporter:1",
            "labels": {"ops.tier": "monitoring"},
            "networks": {"database": None},
            "profiles": ["monitoring-true"],
        },
        "elastic-setup": {"image": "elastic:1", "restart": "no", "networks": {"backend": None}, "profiles": ["l"]},
        "off": {"image": "x", "deploy": {"replicas": 0}},
    },
}  # fmt: skip


def test_what_is_read() -> None:
    services = model.parse(DOCUMENT).services
    postgres, web, nginx = services["postgres"], services["web"], services["nginx"]
    assert postgres.memory_limit == 512 * 1024**2
    assert postgres.mounts == (
        Mount(Path("/p/infrastructure/postgres"), "/etc/postgresql"),
        Mount(Path("/p/config/dev/secrets/S"), "/run/secrets/S"),
    )
    assert postgres.volumes == ("data",)
    assert (postgres.has_health, postgres.probe_seconds) == (True, 95)
    assert not services["migrate"].has_health
    assert (web.replicas, web.built, web.depends_on) == (3, True, ("migrate",))
    assert nginx.ports == (Port("0.0.0.0", 80),)


def test_the_order_of_a_deploy() -> None:
    found = model.parse(DOCUMENT)
    assert found.migrations == ["migrate"]
    assert list(found.foundation) == ["postgres"]
    assert list(found.lasting) == ["postgres", "web", "nginx", "exporter"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1m30s", 90), ("1h0m0s", 3600), ("500ms", 0.5), ("2.5s", 2.5), ("", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert model.seconds(text) == pytest.approx(seconds)


def test_a_required_variable_that_is_missing(env: Environment) -> None:
    said = "error while interpolating x: required variable WEB_MEMORY is missing a value: set WEB_MEMORY"
    error = model.unresolved(env, engine.Completed(("docker",), 15, "", said))
    assert error.message == "config/dev/.env: WEB_MEMORY is not set, and the Compose files need it."
    assert error.code == USAGE


def test_what_is_stopped_while_data_is_replaced(make_stack) -> None:
    declared = make_stack(
        Service("postgres", "postgres:18", labels={"ops.tier": "data"}, networks=("database",)),
        Service(
            "migrate", "migrate", built=True, one_shot=True, labels={"ops.job": "migration"}, networks=("database",)
        ),
        # of ours, without the database: it may hold files
        Service("web", "web", built=True, networks=("frontend",)),
        # a fifth service that nobody named anywhere
        Service("shop", "shop", built=True, networks=("backend", "database")),
        # somebody else's image that reaches the database
        Service(
            "metabase", "metabase:1", labels={"ops.rollout": "restart"}, profiles=("reports",), networks=("database",)
        ),
        Service(
            "exporter",
            "exporter:1",
            profiles=("monitoring",),
            labels={"ops.tier": "monitoring"},
            networks=("database",),
        ),
        Service("nginx", "nginx:1", labels={"ops.part": "edge"}, networks=("frontend",)),
        Service("off", "off", built=True, replicas=0, networks=("database",)),
    )
    assert [*declared.clients] == ["web", "shop", "metabase"]


def test_what_only_watches_is_told_by_its_label() -> None:
    entry = {"image": "prom/prometheus:v3", "labels": {"ops.tier": "monitoring"}}
    found = model.parse({"name": "acme-dev", "services": {"prometheus": entry, "web": {"image": "web"}}})
    assert [each.monitoring for each in found.services.values()] == [True, False]


def test_the_setting_of_a_number_of_containers(env, monkeypatch) -> None:
    document = {
        "services": {
            "web": {"deploy": {"replicas": "${WEB_REPLICAS:?set WEB_REPLICAS in the .env file}"}},
            "worker": {"scale": "$WORKERS"},
            "api": {"deploy": {"replicas": "${API_REPLICAS-2}"}},
            "fixed": {"deploy": {"replicas": 2}},
            "sum": {"deploy": {"replicas": "${ONE}0"}},
            "one": {},
        }
    }
    asked = []

    def compose(_env: object, *args: str, **_options: object) -> engine.Completed:
        asked.append(args)
        return engine.Completed((), 0, json.dumps(document), "")

    monkeypatch.setattr(engine, "compose", compose)
    assert model.replica_settings(env) == {"web": "WEB_REPLICAS", "worker": "WORKERS", "api": "API_REPLICAS"}
    assert asked == [("config", "--no-interpolate", "--format", "json")]


def test_whose_a_service_is_its_labels_say_and_not_how_its_image_is_made() -> None:
    entries = {
        "shop": {"image": "acme/shop:1", "build": {"context": "/p/shop"}},
        "blog": {"image": "ghost:6", "labels": {"ops.port": 2368}, "profiles": ["blog"]},
        "database": {"image": "acme/database:1", "build": {"context": "/p/db"}, "labels": {"ops.stateful": "postgres"}},
        "cache": {"image": "redis:8", "labels": {"ops.tier": "data"}},
        "edge": {"image": "nginx:1", "labels": {"ops.part": "edge"}},
        "grafana": {"image": "grafana:13", "labels": {"ops.tier": "monitoring"}},
        "single": {"image": "acme/single:1", "labels": {"ops.rollout": "restart"}},
        "published": {"image": "acme/published:1", "ports": [{"target": 25, "published": "25"}]},
    }
    found = model.parse({"name": "acme-dev", "services": entries})
    assert [name for name, each in found.services.items() if each.own] == ["shop", "blog", "single", "published"]
    assert [*found.rolling] == ["shop", "blog"]
    assert [*found.foundation] == ["database", "cache"]
    assert [*found.monitoring] == ["grafana"]
    assert found.services["blog"].labels == {"ops.port": "2368"}


def test_when_a_job_runs() -> None:
    entries = {
        "migrate": {"image": "x", "restart": "no", "labels": {"ops.job": "migration"}, "profiles": ["some"]},
        # without a restart policy the engine has none
        "import": {"image": "x", "labels": {"ops.job": "manual"}},
        "cleanup": {"image": "x", "restart": "no", "labels": {"ops.schedule": "0 3 * * *"}},
        "odd": {"image": "x", "restart": "no", "labels": {"ops.job": "sometimes"}},
        "worker": {"image": "x", "restart": "unless-stopped"},
    }
    found = model.parse({"name": "acme-dev", "services": entries})
    assert {name: each.job for name, each in found.services.items()} == {
        "migrate": "migration", "import": "manual", "cleanup": "schedule", "odd": "", "worker": "",
    }  # fmt: skip
    assert found.migrations == ["migrate"]
    assert [name for name, each in found.services.items() if each.on_demand] == ["import", "cleanup"]
    assert [*found.lasting] == [*found.rolling] == ["worker"]


def test_the_site_and_what_watches_it() -> None:
    services = [
        model.Service("web", "acme/web", built=True),
        model.Service("worker", "acme/worker", built=True, profiles=("jobs",)),
        model.Service("etcd", "etcd", labels={"ops.stateful": "postgres"}, profiles=("failover",)),
        model.Service("grafana", "grafana", labels={"ops.tier": "monitoring"}, profiles=("dashboards",)),
        model.Service("index", "curl", labels={"ops.tier": "monitoring"}, one_shot=True, profiles=("logging",)),
    ]
    stack = model.Stack("acme", {each.name: each for each in services}, {})
    assert [*stack.monitoring] == ["grafana"]
    assert [*stack.site] == ["web", "worker", "etcd"]
