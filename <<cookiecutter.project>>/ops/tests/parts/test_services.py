"""Who is stopped while data is replaced."""

from __future__ import annotations

from ops import engine
from ops.parts import services
from ops.stack.model import Service

JOB = {"ops.schedule": "0 3 * * *"}
PART = {"ops.part": "scheduler"}


def test_the_scheduler_is_away_while_data_is_replaced(make_stack, make_container) -> None:
    """Or it would start a job in the middle."""
    declared = make_stack(
        Service("scheduler", "acme/scheduler:1", labels=PART),
        Service("engine-proxy", "haproxy:3", labels=PART),
        Service("report", "acme/report:1", one_shot=True, labels=JOB),
    )
    found = [make_container(name) for name in declared.services]
    assert [each.service for each in services.of(declared, found)] == ["scheduler"]


def test_jobs_at_work_and_one_off_containers_are_stopped(env, make_stack, make_container, monkeypatch) -> None:
    declared = make_stack(
        Service("web", "acme/web:1"),
        Service("report", "acme/report:1", one_shot=True, labels=JOB),
        Service("idle", "acme/idle:1", one_shot=True, labels=JOB),
        Service("nginx", "nginx:1", labels={"ops.part": "edge"}),
    )
    found = [make_container("web"), make_container("report"), make_container("idle", state="exited")]
    beside = [make_container("web", 7), make_container("nginx", 7), make_container("web", 8, state="exited")]
    stopped: list[str] = []
    monkeypatch.setattr(engine, "containers", lambda _env: found)
    monkeypatch.setattr(engine, "one_offs", lambda _env: beside)
    monkeypatch.setattr(engine, "docker", lambda verb, *ids, timeout: stopped.extend([verb, *ids]))
    services.stop_jobs(env, declared)
    assert stopped == ["stop", "acme-dev-report-1", "acme-dev-web-7"]
