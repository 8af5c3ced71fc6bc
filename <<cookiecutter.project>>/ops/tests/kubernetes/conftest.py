"""A small project as Compose resolves it, and what becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.base import environments
from ops.base.environments import Environment
from ops.kubernetes import export
from ops.kubernetes.export import Export
from ops.stack import model
from ops.stack.model import Stack

HARDENED: dict[str, Any] = {
    "restart": "unless-stopped",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
HEALTH = {"test": ["CMD", "check"], "interval": "10s", "timeout": "5s", "retries": 3, "start_period": "20s"}


@pytest.fixture
def document(project: Path) -> dict[str, Any]:
    """An edge, a service that takes requests, a pair of a database, and a migration."""
    (project / "infrastructure" / "db").mkdir(parents=True)
    (project / "infrastructure" / "db" / "start.sh").write_text("echo $HOME\n")
    database = {
        **HARDENED,
        "image": "db:1",
        "user": "999:999",
        "entrypoint": ["sh", "/etc/db/start.sh"],
        "healthcheck": HEALTH,
        "labels": {"ops.tier": "data"},
        "networks": {"database": None},
        "secrets": [{"source": "DB_PASSWORD", "target": "/run/secrets/DB_PASSWORD"}],
    }
    files = {"type": "bind", "source": str(project / "infrastructure" / "db"), "target": "/etc/db", "read_only": True}
    return {
        "name": "acme-prod",
        "networks": {"backend": {}, "database": {"internal": True}, "serving": {"internal": True}},
        "secrets": {"DB_PASSWORD": {"file": str(project / "config" / "prod" / "secrets" / "DB_PASSWORD")}},
        "volumes": {"a_data": {}, "b_data": {}, "edge": {}},
        "services": {
            "nginx": {
                **HARDENED,
                "image": "nginx:1",
                "user": "101:101",
                "labels": {"ops.part": "edge"},
                "healthcheck": HEALTH,
                "expose": ["8081"],
                "networks": {"backend": {"aliases": ["internal"]}, "serving": None},
                "ports": [{"target": 8443, "published": "443", "host_ip": "0.0.0.0", "protocol": "tcp"}],
                "stop_grace_period": "1m15s",
                "volumes": [
                    {"type": "volume", "source": "edge", "target": "/etc/nginx/routes", "read_only": True},
                    {
                        "type": "bind",
                        "source": str(project / "config" / "prod" / "secrets" / "tls"),
                        "target": "/etc/nginx/tls",
                        "read_only": True,
                    },
                ],
            },
            "shop": {
                **HARDENED,
                "image": "acme/shop:3",
                "user": "10001:10001",
                "labels": {
                    "ops.port": "8000",
                    "ops.route": "/shop/",
                    "ops.ready": "/health/ready",
                    "ops.live": "/health/live",
                },
                "environment": {"SIGN": "$$(NAME) $$$$", "UNSET": None},
                "networks": {"backend": None, "database": None, "serving": {"aliases": ["shop.serving"]}},
                "tmpfs": ["/tmp:mode=1777,size=64m"],
                "stop_grace_period": "45s",
                "deploy": {"replicas": 3, "resources": {"limits": {"cpus": 0.5, "memory": "402653184", "pids": 128}}},
                "secrets": [{"source": "DB_PASSWORD", "target": "/run/secrets/DB_PASSWORD"}],
            },
            "db-a": {**database, "volumes": [{"type": "volume", "source": "a_data", "target": "/data"}, files]},
            "db-b": {**database, "volumes": [{"type": "volume", "source": "b_data", "target": "/data"}, files]},
            "migrate": {
                **HARDENED,
                "image": "acme/migrate:3",
                "user": "10001:10001",
                "restart": "no",
                "labels": {"ops.job": "migration"},
                "networks": {"database": None},
            },
        },
    }


@pytest.fixture
def stack(document: dict[str, Any]) -> Stack:
    """That project as it is declared."""
    return model.parse(document)


@pytest.fixture
def prod(project: Path) -> Environment:
    """Its environment."""
    return environments.load("prod", project)


Changed = Callable[..., Export]


@pytest.fixture
def exported(prod: Environment, document: dict[str, Any]) -> Changed:
    """What the project becomes. Keywords: settings of a service that are otherwise, by its name with _ for -."""

    def render(**changes: dict[str, Any]) -> Export:
        changed = copy.deepcopy(document)
        for name, settings in changes.items():
            entry = changed["services"].setdefault(name.replace("_", "-"), {**HARDENED, "user": "10001:10001"})
            entry.update(settings)
        return export.render(prod, model.parse(changed))

    return render
