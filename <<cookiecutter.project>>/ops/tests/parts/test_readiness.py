"""Readiness is what a container's own health check says, whatever the service is written in."""

import pytest

from ops import engine
from ops.parts import readiness
from ops.parts.nginx import edge
from ops.parts.nginx.edge import Reply
from ops.parts.probes import Seen
from ops.stack import model


@pytest.mark.parametrize(
    ("ok", "answer", "status", "detail"),
    [
        (True, '{"status": "ready", "missing": []}', "ok", "ready"),
        (True, '{"status": "degraded", "missing": ["redis"]}', "warn", "degraded: redis missing"),
        (False, '{"status": "unready", "missing": ["postgres", "redis"]}', "fail", "unready: postgres, redis missing"),
        (False, '{"status": "draining", "missing": []}', "fail", "draining"),
        (False, "Traceback\nno answer on port 8000\n", "fail", "no answer on port 8000"),
        (False, "", "fail", "no answer"),
    ],
)
def test_readiness(ok, answer, status, detail):
    check = readiness.judge_ready("api-1", ok, answer)
    assert (check.status, check.detail) == (status, detail)


@pytest.mark.parametrize(
    ("healthcheck", "argv"),
    [
        ({"test": ["CMD", "node", "ready.js"]}, ["node", "ready.js"]),
        ({"test": ["CMD-SHELL", "wget -q localhost:3000 || exit 1"]}, ["sh", "-c", "wget -q localhost:3000 || exit 1"]),
        ({"test": ["NONE"]}, []),
        ({"test": ["CMD", "x"], "disable": True}, []),
        ({}, []),
    ],
)
def test_the_command_of_a_health_check(healthcheck, argv):
    assert readiness.command(healthcheck) == argv


def test_a_fifth_service_is_asked_like_the_others(env, make_container, monkeypatch):
    build, check = {"context": "."}, {"test": ["CMD", "node", "ready.js"]}
    document = {
        "name": "acme-dev",
        "services": {
            "shop": {"image": "shop", "build": build, "healthcheck": check},
            "postgres": {"image": "postgres", "labels": {"ops.tier": "data"}, "healthcheck": check},
            "migrate": {"image": "migrate", "build": build, "restart": "no", "healthcheck": check},
        },
    }
    asked = []

    def run(container, argv, **_options):
        asked.append((container, *argv))
        return engine.Completed((), 0, "", "")

    monkeypatch.setattr(engine, "exec_", run)
    found = [make_container(name) for name in ("shop", "postgres", "migrate")]
    found.append(make_container("shop", 2, state="exited"))

    class Declared:
        def result(self):
            return model.parse(document)

    (probe,) = readiness.probes(Seen(env, found, Declared()))
    (check,) = probe.ask()
    assert asked == [("acme-dev-shop-1", "node", "ready.js")]
    assert (check.target, check.status, check.detail) == ("shop-1", "ok", "ready")


@pytest.mark.parametrize(
    ("said", "reply", "status", "detail"),
    [
        ("/up", Reply(200, True), "ok", "ready"),
        ("/up", Reply(500, True), "fail", "answers /up with 500 instead of 200 (its label ops.ready)"),
        ("tcp", Reply(404, True), "ok", "ready"),
        ("tcp", Reply(), "fail", "does not answer on port 3000"),
    ],
)
def test_one_without_a_health_check_is_asked_by_nginx(env, make_container, monkeypatch, said, reply, status, detail):
    entry = {
        "image": "shop",
        "labels": {"ops.port": "3000", "ops.ready": said},
        "networks": {"serving": {"aliases": ["shop.serving"]}},
    }
    urls = []

    def replies(_nginx, asked):
        urls.extend(asked)
        return dict.fromkeys(asked, reply)

    monkeypatch.setattr(edge, "replies", replies)

    class Declared:
        def result(self):
            return model.parse({"name": "acme-dev", "services": {"shop": entry}})

    found = [make_container("shop", addresses={"s": "10.0.0.4"}), make_container("nginx", addresses={"s": "10.0.0.2"})]
    (probe,) = readiness.probes(Seen(env, found, Declared()))
    (check,) = probe.ask()
    assert (check.target, check.status) == ("shop-1", status)
    assert check.detail.startswith(detail)
    assert urls == [f"http://10.0.0.4:3000{'/up' if said == '/up' else '/'}"]
