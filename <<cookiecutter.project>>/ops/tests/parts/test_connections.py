"""Connections to PostgreSQL: what services say they hold, and what is too many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.base.findings import FAILED, OK, WARNING
from ops.parts.postgres import connections
from ops.stack.model import Service, Stack

PROJECT = Path(__file__).resolve().parents[3]
API = Service("api", "acme/api", replicas=2, built=True)
WORKER = Service("worker", "acme/worker", replicas=1, built=True, labels={"ops.stateful": "postgres"})
WEB = Service("web", "acme/web", built=True)
DOCUMENT = {
    "services": {
        "api": {"labels": {connections.LABEL: "15"}},
        "worker": {"labels": {connections.LABEL: "8"}},
        "web": {},
    }
}
STACK = Stack("acme-dev", {each.name: each for each in (API, WORKER, WEB)}, DOCUMENT)


@pytest.mark.parametrize(
    ("replicas", "limit", "status", "steady", "rolling"),
    [
        # 2 x 15 + 8; a service that holds data is not doubled by a rollout
        (None, "78", OK, 38, 68),
        (None, "77", WARNING, 38, 68),
        (None, "48", WARNING, 38, 68),
        (None, "47", FAILED, 38, 68),
        ({"api": 10}, "200", WARNING, 158, 308),
        ({"api": 10}, "318", OK, 158, 308),
    ],
)
def test_what_is_too_many(env, replicas, limit: str, status: str, steady: int, rolling: int) -> None:
    env.values["POSTGRES_MAX_CONNECTIONS"] = limit
    found = connections.check(env, STACK, replicas)
    assert found.status == status
    assert found.detail == (
        f"services may hold {steady} connections, {rolling} during a rollout; {int(limit) - 10} of {limit} are theirs"
    )
    assert (found.remedy == "") == (status == OK)
    assert status == OK or "POSTGRES_MAX_CONNECTIONS in config/dev/.env" in found.remedy


def test_services_in_python_say_what_their_pools_hold() -> None:
    """Their own setting, where they have one; otherwise that of all."""
    text = (PROJECT / "docker-compose.services.yml").read_text(encoding="utf-8")
    for entry in re.findall(r"^  [a-z-]+:\n((?:    .*\n|\n)+)", text, re.MULTILINE):
        declared = re.findall(rf"{connections.LABEL}: (\d+)", entry)
        package = re.findall(r"^        SERVICE: (\w+)$", entry, re.MULTILINE)
        if declared and package:
            settings = [
                PROJECT / f"services/{name}/settings.py" for name in (f"{package[0]}/{package[0]}", "common/stack")
            ]
            found = [re.findall(r"database_pool: int = Field\(default=(\d+)", path.read_text()) for path in settings]
            assert declared == next(filter(None, found)), entry
