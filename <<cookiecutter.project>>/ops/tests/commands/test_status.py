"""How services stand, and what a table shows of it."""

from __future__ import annotations

import json

import pytest

from ops import engine
from ops.base import console
from ops.commands import status
from ops.parts.nginx import maintenance
from ops.rollout import gate, observe
from ops.stack.model import Service
from ops.state import lock


def test_how_services_stand(make_stack, make_container) -> None:
    declared = make_stack(
        Service("web", "acme/web:1", replicas=2),
        Service("api", "acme/api:1"),
        Service("auth", "acme/auth:1"),
        Service("migrate", "acme/migrate:1", one_shot=True, labels={"ops.job": "migration"}),
        Service("off", "off:1", replicas=0),
    )
    containers = [
        make_container("web", 1, restarts=1, started=100.0, ports=("127.0.0.1:1->2",)),
        make_container("web", 2, restarts=2, started=200.0),
        make_container("api", health="unhealthy"),
        make_container("migrate", state="exited", health="", exit_code=0),
        make_container("prometheus"),
    ]
    found = {each.service: each for each in status.standings(declared, containers, now=260.0)}
    web = found["web"]
    assert (web.running, web.wanted, web.state, web.uptime, web.restarts) == (2, 2, "healthy", 60.0, 3)
    assert {name: each.state for name, each in found.items()} == {
        "web": "healthy",
        "api": "unhealthy",
        "auth": "down",
        "migrate": "done",
        "off": "switched off",
        "prometheus": "not declared",
    }
    assert list(found) == ["web", "api", "auth", "migrate", "off", "prometheus"]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"state": "exited", "exit_code": 2}, "failed (2)"),
        ({"state": "running"}, "running"),
    ],
)
def test_how_a_job_stands(make_stack, make_container, changes, state: str) -> None:
    declared = make_stack(Service("migrate", "x", one_shot=True, labels={"ops.job": "migration"}))
    assert status.standings(declared, [make_container("migrate", **changes)], 0)[0].state == state
    assert status.standings(declared, [], 0)[0].state == "never ran"


def test_status_for_programs(env, make_stack, make_container, monkeypatch, capsys) -> None:
    seen = observe.Glance(make_stack(Service("web", "acme/web:1")), [make_container("web")])
    monkeypatch.setattr(status, "glance", lambda env: seen)
    status.status(env, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["environment"], document["project"]) == ("dev", "acme-dev")
    assert document["services"][0]["state"] == "healthy"


def test_colours_know_every_state() -> None:
    assert gate.COLOURS["healthy"] == gate.COLOURS["done"] == "green"


def test_a_narrow_table_leaves_columns_out_before_it_cuts_names() -> None:
    columns, rows = (
        ("SERVICE", "STATE", "IMAGE", "PORTS"),
        [("postgres-primary", "[green]ok[/]", "x" * 70, "1->2")],
    )
    assert console.fitting(columns, rows, ("IMAGE", "PORTS"), 120) == ([*columns], [list(rows[0])])
    narrow = (["SERVICE", "STATE", "PORTS"], [[rows[0][0], rows[0][1], "1->2"]])
    assert console.fitting(columns, rows, ("IMAGE", "PORTS"), 80) == narrow
    assert console.fitting(columns, rows, ("IMAGE", "PORTS"), 20)[0] == ["SERVICE", "STATE"]


def test_jobs_and_one_off_containers(env, make_stack, make_container, monkeypatch, capsys) -> None:
    labels = {"ops.schedule": "0 3 * * *"}
    declared = make_stack(Service("report", "acme/report:1", one_shot=True, labels=labels))
    job = make_container("report", state="exited", health="", exit_code=3, labels=labels, finished=2000.0)
    seen = observe.Glance(declared, [job])
    beside = make_container("api", name="acme-dev-api-run-7", labels={"ops.by": "ann@host"})
    monkeypatch.setattr(status, "glance", lambda env: seen)
    monkeypatch.setattr(engine, "one_offs", lambda env: [beside])
    monkeypatch.setattr(lock, "holder", lambda env: None)
    monkeypatch.setattr(maintenance, "since", lambda env: 0)
    status.status(env)
    said = capsys.readouterr().out
    assert "failed with exit code 3" in said and "03:00 UTC" in said
    assert "run beside api by ann@host for" in said and "acme-dev-api-run-7" in said
    status.status(env, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["jobs"][0]["status"] == "fail"
    assert document["one_off"] == [{"name": "acme-dev-api-run-7", "by": "ann@host"}]
