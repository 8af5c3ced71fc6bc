"""Stop, down, status, logs and config: arguments, questions and command lines."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext

import pytest

from ops import engine
from ops.base import findings
from ops.base.errors import FAILED, USAGE, OpsError
from ops.commands import lifecycle
from ops.commands.lifecycle import Leftovers
from ops.engine import Completed
from ops.rollout import gate, observe, preflight
from ops.stack import model
from ops.stack.model import Service

# ── stop, down ────────────────────────────────────────────────────────────────────────────────────────────────────────

FULL = Leftovers(("acme-dev-web-1",), ("acme-dev_backend",), ("acme-dev_data",))
EMPTY = Leftovers((), (), ())


class Engine:
    """Notes command lines; what is left over is told by the test, one answer a question (the last one repeats)."""

    def __init__(self, *left: Leftovers) -> None:
        self.left = list(left)
        self.lines: list[list[str]] = []

    def leftovers(self, _env: object) -> Leftovers:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def logged(self, argv: list[str], *_args: object, **_options: object) -> int:
        self.lines.append(argv)
        return 0

    def docker(self, *args: str, **_options: object) -> Completed:
        self.lines.append(list(args))
        return Completed(args, 0, "", "")


@pytest.fixture
def fake(monkeypatch):
    def make(*left: Leftovers) -> Engine:
        made = Engine(*left)
        monkeypatch.setattr(lifecycle, "leftovers", made.leftovers)
        monkeypatch.setattr(lifecycle, "volume_sizes", lambda: {"acme-dev_data": 2048})
        monkeypatch.setattr(engine, "logged", made.logged)
        monkeypatch.setattr(engine, "docker", made.docker)
        monkeypatch.setattr(lifecycle.lock, "hold", lambda *_args: nullcontext())
        monkeypatch.setattr(lifecycle, "drain", lambda _env: made.lines.append(["drain"]))
        return made

    return make


def test_down_keeps_the_data(env, fake, capsys) -> None:
    made = fake(FULL, Leftovers((), (), FULL.volumes))
    lifecycle.down(env)
    assert made.lines == [["drain"], engine.compose_argv(env, "down", "--remove-orphans", all_profiles=True)]
    assert capsys.readouterr().out.endswith("dev is down: 1 containers, 1 networks removed, 1 volumes kept\n")


def test_down_when_it_is_down(env, fake, capsys) -> None:
    made = fake(Leftovers((), (), FULL.volumes))
    lifecycle.down(env)
    assert made.lines == []
    assert "nothing to remove: dev is down; 1 volumes with its data are kept" in capsys.readouterr().out


def test_down_with_volumes_names_what_will_be_lost(env, fake, capsys) -> None:
    made = fake(FULL, EMPTY)
    lifecycle.down(env, volumes=True, assume_yes=True)
    assert made.lines == [
        ["drain"],
        engine.compose_argv(env, "down", "--remove-orphans", "--volumes", all_profiles=True),
    ]
    assert "  acme-dev_data  2.0 KiB\n" in capsys.readouterr().out


def test_down_with_volumes_forgets_what_was_deployed(env, fake) -> None:
    made = fake(Leftovers((), (), ("acme-dev-state", "acme-dev_data")), EMPTY)
    lifecycle.down(env, volumes=True, assume_yes=True)
    assert made.lines[2:] == [
        ["rm", "--force", "acme-dev-state"],
        ["volume", "rm", "--force", "acme-dev-state"],
        ["rmi", "--force", "acme-dev-state"],
    ]


def test_down_with_volumes_needs_somebody_who_agrees(env, fake) -> None:
    made = fake(FULL)
    with pytest.raises(OpsError) as caught:
        lifecycle.down(env, volumes=True)
    assert caught.value.code == USAGE
    assert made.lines == []


@pytest.mark.parametrize(("answer", "removed"), [("prod", True), ("y", False)])
def test_in_production_its_name_must_be_typed(project, fake, monkeypatch, answer: str, removed: bool) -> None:
    from ops.base import environments

    made = fake(FULL, EMPTY)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    monkeypatch.setattr(lifecycle.console.confirm, "__defaults__", (False, "", lambda prompt: answer))
    prod = environments.load("prod", project)
    if removed:
        lifecycle.down(prod, volumes=True)
    else:
        with pytest.raises(OpsError, match="Nothing was removed"):
            lifecycle.down(prod, volumes=True)
    assert bool(made.lines) is removed


def test_down_removes_what_compose_does_not_know(env, fake) -> None:
    made = fake(FULL, Leftovers(("old",), ("net",), ()), EMPTY)
    lifecycle.down(env)
    assert made.lines[2:] == [["rm", "--force", "old"], ["network", "rm", "net"]]


def test_down_fails_when_something_is_left(env, fake) -> None:
    fake(FULL, FULL)
    with pytest.raises(OpsError) as caught:
        lifecycle.down(env)
    assert caught.value.code == FAILED
    assert caught.value.message == (
        "dev is not down, this is left: container acme-dev-web-1, network acme-dev_backend."
    )


def test_stop_reaches_switched_off_and_undeclared_services(env, fake, make_container, monkeypatch, capsys) -> None:
    made = fake(EMPTY)
    looks = iter([[make_container("web"), make_container("old")], [make_container("old")]])
    monkeypatch.setattr(engine, "containers", lambda env: next(looks))
    lifecycle.stop(env)
    assert made.lines == [["drain"], engine.compose_argv(env, "stop", all_profiles=True), ["stop", "acme-dev-old-1"]]
    assert "stopped 2 containers" in capsys.readouterr().out


def test_nothing_to_stop(env, fake, make_container, monkeypatch, capsys) -> None:
    fake(EMPTY)
    monkeypatch.setattr(engine, "containers", lambda env: [make_container("web", state="exited")])
    lifecycle.stop(env)
    assert capsys.readouterr().out == "nothing to stop: no container of dev runs\n"


@pytest.mark.parametrize(
    ("text", "size"), [("12.5MB", 12_500_000), ("0B", 0), ("1.2kB", 1200), ("3GB", 3 * 10**9), ("N/A", -1), ("", -1)]
)
def test_docker_sizes(text: str, size: int) -> None:
    assert lifecycle._bytes(text) == size


# ── status, logs, config ──────────────────────────────────────────────────────────────────────────────────────────────


def test_how_services_stand(make_stack, make_container) -> None:
    declared = make_stack(
        Service("web", "acme/web:1", replicas=2),
        Service("api", "acme/api:1"),
        Service("auth", "acme/auth:1"),
        Service("migrate", "acme/migrate:1", one_shot=True),
        Service("off", "off:1", replicas=0),
    )
    containers = [
        make_container("web", 1, restarts=1, started=100.0, ports=("127.0.0.1:1->2",)),
        make_container("web", 2, restarts=2, started=200.0),
        make_container("api", health="unhealthy"),
        make_container("migrate", state="exited", health="", exit_code=0),
        make_container("prometheus"),
    ]
    found = {each.service: each for each in lifecycle.standings(declared, containers, now=260.0)}
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
    declared = make_stack(Service("migrate", "x", one_shot=True))
    assert lifecycle.standings(declared, [make_container("migrate", **changes)], 0)[0].state == state
    assert lifecycle.standings(declared, [], 0)[0].state == "never ran"


def test_status_for_programs(env, make_stack, make_container, monkeypatch, capsys) -> None:
    seen = observe.Glance(make_stack(Service("web", "acme/web:1")), [make_container("web")])
    monkeypatch.setattr(lifecycle, "glance", lambda env: seen)
    lifecycle.status(env, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["environment"], document["project"]) == ("dev", "acme-dev")
    assert document["services"][0]["state"] == "healthy"


def test_logs_command_line(env) -> None:
    assert lifecycle.logs_argv(env, "api", follow=True, tail="50", since="10m") == engine.compose_argv(
        env, "logs", "--tail", "50", "--follow", "--since", "10m", "--no-color", "api", all_profiles=True
    )
    assert lifecycle.logs_argv(env, "", follow=False, tail="all", since="")[-4:] == [
        "logs",
        "--tail",
        "all",
        "--no-color",
    ]


def test_logs_of_nobody(env, make_stack, monkeypatch) -> None:
    monkeypatch.setattr(model, "load", lambda env, all_profiles: make_stack(Service("web", "x")))
    monkeypatch.setattr(engine, "containers", lambda env: [])
    with pytest.raises(OpsError, match='There is no service "wbe"') as caught:
        lifecycle.logs(env, "wbe")
    assert (caught.value.code, caught.value.remedy) == (USAGE, "There are: web.")
    with pytest.raises(OpsError, match="--tail must be a whole number"):
        lifecycle.logs(env, tail="-5")


def test_config_shows_the_plain_command(env, make_stack, monkeypatch, capsys) -> None:
    monkeypatch.setattr(engine, "compose", lambda env, *args, **options: Completed(args, 0, "name: acme-dev\n", ""))
    lifecycle.config(env)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "#   docker compose --env-file config/dev/.env up --detach",
        "name: acme-dev",
    ]
    monkeypatch.setattr(model, "load", lambda env: make_stack())
    lifecycle.config(env, as_json=True)
    assert json.loads(capsys.readouterr().out)["settings"]["WEB_PORT"] == "8080"


def test_doctor(env, make_stack, monkeypatch, capsys) -> None:
    found = [findings.Check("disk", findings.OK, "lots"), findings.Check("ports", findings.WARNING, "hm", "Look.")]
    monkeypatch.setattr(preflight, "run", lambda *_args: found)
    monkeypatch.setattr(model, "load", lambda env: make_stack())
    monkeypatch.setattr(engine, "containers", lambda env: [])
    assert lifecycle.doctor(env)
    assert "dev can be deployed" in capsys.readouterr().out
    found.append(findings.Check("memory", findings.FAILED, "none", "Buy some."))
    assert not lifecycle.doctor(env)
    assert "dev cannot be deployed: memory" in capsys.readouterr().out


def test_colours_know_every_state() -> None:
    assert gate.COLOURS["healthy"] == gate.COLOURS["done"] == "green"
