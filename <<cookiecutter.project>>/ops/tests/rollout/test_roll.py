"""Rollouts over an engine made of lists: what is done in which order, and the way back from every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ops import engine
from ops.base.errors import CRASHED, SMOKE, OpsError
from ops.engine import Completed, Container
from ops.parts.nginx import edge
from ops.rollout import gate, roll
from ops.rollout.roll import Move, Rollout, move
from ops.stack.model import Service

WEB = Service("web", "acme/web:1", replicas=2, built=True, has_health=True)


class Engine:
    """Containers in a list, and the lines that changed them. fate: what becomes of a container that is started."""

    def __init__(self, containers: list[Container]) -> None:
        self.all = containers
        self.lines: list[tuple[str, ...]] = []
        self.fate: Callable[[Container], Container] = lambda each: replace(each, state="running", health="healthy")
        self.dies = ""  # a step during which everything ends

    def containers(self, _env: object) -> list[Container]:
        return list(self.all)

    def look(self, ids: list[str]) -> list[Container]:
        return [each for each in self.all if each.id in ids]

    def compose(self, _env: object, *args: str, **_options: object) -> Completed:
        self.note("create", args[args.index("--scale") + 1])
        usual = next(each for each in self.all if each.service == "web")
        for number in (11, 12):
            self.all.append(
                replace(usual, id=f"new{number}", name=f"acme-dev-web-{number}", number=number, state="created",
                        health="", restart_policy="always", addresses={"net": f"10.0.0.{number}"},
                        labels={"ops.smoke": "/login"})
            )  # fmt: skip
        return Completed((), 0, "", "")

    def docker(self, verb: str, *args: str, **_options: object) -> Completed:
        self.note(verb, *args)
        if verb == "start":
            self.all = [self.fate(each) if each.id in args else each for each in self.all]
        if verb == "rm":
            self.all = [each for each in self.all if each.id not in args]
        if verb == "update":
            policy = args[args.index("--restart") + 1] if "--restart" in args else "no"
            self.all = [replace(each, restart_policy=policy) if each.id in args else each for each in self.all]
        return Completed((), 0, "", "")

    def note(self, *line: str) -> None:
        self.lines.append(line)
        if line[0] == self.dies:
            self.dies = ""
            raise KeyboardInterrupt

    def inspect(self, ids: list[str], _kind: str = "") -> list[dict]:
        return [{"Name": f"/{each}", "State": {"ExitCode": 137 if each == "stubborn" else 0}} for each in ids]


@pytest.fixture
def old(make_container) -> list[Container]:
    """Two containers of web that serve, and nginx."""
    usual = {"addresses": {"net": "10.0.0.1"}, "restart_policy": "always"}
    web = [make_container("web", number, id=f"old{number}", **usual) for number in (1, 2)]
    return [*web, make_container("nginx", id="nginx", addresses={"net": "10.0.0.9"})]


@pytest.fixture
def rolling(env, old, monkeypatch):
    """Replaces web on a made-up engine; gives the engine, ready to be looked at."""
    docker = Engine(old)
    monkeypatch.setattr(engine, "processors", lambda: 4)
    for name in ("containers", "look", "compose", "docker", "inspect"):
        monkeypatch.setattr(engine, name, getattr(docker, name))
    monkeypatch.setattr(engine, "logs", lambda *_args: ["the last words"])
    monkeypatch.setattr(edge, "point", lambda _nginx, wanted: docker.note("point", *sorted(wanted["web"])))
    monkeypatch.setattr(edge, "release", lambda _nginx: docker.note("point"))
    monkeypatch.setattr(edge, "settle", lambda _nginx: docker.note("settle"))
    monkeypatch.setattr(edge, "ask", lambda *_args: "")
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.01)
    env.values["ROLLOUT_STEADY_SECONDS"] = "0"

    def drain(_nginx: object, **options: object) -> bool:
        docker.note("drain")
        options.get("watch", lambda: None)()
        return True

    monkeypatch.setattr(edge, "drain", drain)
    docker.rollout = Rollout(env, None, {"web": {"restart": "always"}}, [move(WEB, old[:2], lambda _each: False)], 1)
    return docker


NEW = ("new11", "new12")
BESIDE = [
    ("point", "10.0.0.1", "10.0.0.1"),
    ("create", "web=4"),
    ("update", "--restart", "no", "--cpu-shares", "32", *NEW),
    ("settle",),
    ("start", *NEW),
]
BACK = [("rm", "--force", *NEW), ("point",)]


def test_new_beside_old_then_switch_drain_stop(rolling) -> None:
    rolling.rollout.run()
    assert rolling.lines == [
        *BESIDE,
        ("update", "--restart", "always", "--cpu-shares", "1024", *NEW),
        ("point", "10.0.0.11", "10.0.0.12"),
        ("drain",),
        ("kill", "--signal", "TERM", "old1", "old2"),
        ("stop", "old1", "old2"),
        ("rm", "--force", "old1", "old2"),
        ("point",),
    ]


def test_no_more_start_at_once_than_there_are_processors(rolling, monkeypatch) -> None:
    monkeypatch.setattr(engine, "processors", lambda: 1)
    rolling.rollout.run()
    assert [line for line in rolling.lines if line[0] == "start"] == [("start", "new11"), ("start", "new12")]


def test_whoever_starves_gets_more_time_of_the_processor(rolling, monkeypatch) -> None:
    monkeypatch.setattr(roll, "_YIELD_SECONDS", -1)
    rolling.rollout.run()
    assert rolling.lines[: len(BESIDE) + 1] == [*BESIDE, ("update", "--cpu-shares", "1024", *NEW)]
    assert [line for line in rolling.lines if line[0] == "update"][2:] == [
        ("update", "--restart", "always", "--cpu-shares", "1024", *NEW)
    ]


def test_a_crash_leads_back(rolling, capsys) -> None:
    rolling.fate = lambda each: replace(each, state="exited", health="", exit_code=3)
    with pytest.raises(OpsError, match=r"web stopped with exit code 3\.\n.*\n  the last words") as caught:
        rolling.rollout.run()
    assert caught.value.code == CRASHED
    assert "The old containers keep serving; the new ones were removed." in caught.value.remedy
    assert rolling.lines == [*BESIDE, *BACK]


def test_one_that_has_restarted_is_not_even_asked(rolling, capsys) -> None:
    rolling.fate = lambda each: replace(each, state="running", health="healthy", restarts=1)
    with pytest.raises(OpsError, match="web restarted once"):
        rolling.rollout.run()
    assert "smoke request" not in capsys.readouterr().out
    assert rolling.lines == [*BESIDE, *BACK]


def test_a_wrong_answer_to_the_smoke_request_leads_back(rolling, monkeypatch) -> None:
    monkeypatch.setattr(edge, "ask", lambda *_args: "answered with 500")
    with pytest.raises(OpsError, match="web answered with 500") as caught:
        rolling.rollout.run()
    assert caught.value.code == SMOKE
    assert rolling.lines == [*BESIDE, *BACK]


def test_a_crash_while_draining_leads_back_over_the_edge(rolling, monkeypatch) -> None:
    def drain(_nginx: object, **options: object) -> bool:
        rolling.note("drain")
        if "watch" in options:
            rolling.all = [replace(each, restarts=1) if each.id == "new12" else each for each in rolling.all]
            options["watch"]()
        return True

    monkeypatch.setattr(edge, "drain", drain)
    with pytest.raises(OpsError, match="web restarted once"):
        rolling.rollout.run()
    assert rolling.lines[-4:] == [("point", "10.0.0.1", "10.0.0.1"), ("drain",), *BACK]
    assert {each.id for each in rolling.all} == {"old1", "old2", "nginx"}


@pytest.mark.parametrize("step", ["create", "update", "settle", "start", "drain"])
def test_an_interruption_before_the_old_ones_are_stopped_leads_back(rolling, step: str) -> None:
    rolling.dies = step
    with pytest.raises(KeyboardInterrupt):
        rolling.rollout.run()
    assert rolling.lines[-1] == ("point",)
    assert {each.id for each in rolling.all} == {"old1", "old2", "nginx"}


@pytest.mark.parametrize("number", range(1, 8))
def test_whoever_has_lost_the_lock_stops_nobody(rolling, number: int) -> None:
    """At whichever look it is found out: the old containers are left alone from there on."""
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks >= number:
            raise OpsError("The lock of dev is gone.")

    rolling.rollout.check = check
    with pytest.raises(OpsError, match="The lock of dev is gone"):
        rolling.rollout.run()
    assert looks == number
    done = {line[0] for line in rolling.lines}
    assert not done & {"kill", "stop"} and (number > 1 or not done & {"create", "start"})
    assert {"old1", "old2", "nginx"} <= {each.id for each in rolling.all}


def test_a_way_back_that_fails_hides_nothing_and_claims_nothing(rolling, monkeypatch) -> None:
    rolling.fate = lambda each: replace(each, state="exited", health="", exit_code=3)
    real = rolling.docker

    def stubborn(verb: str, *args: str, **options: object) -> Completed:
        if verb == "rm":
            return Completed((), 1, "", "device or resource busy")
        return real(verb, *args, **options)

    def full(_nginx: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "docker", stubborn)
    monkeypatch.setattr(edge, "release", full)
    with pytest.raises(OpsError, match=r"web stopped with exit code 3\.") as caught:
        rolling.rollout.run()
    assert caught.value.code == CRASHED
    assert "were removed" not in caught.value.remedy
    assert caught.value.message.endswith(
        "The way back failed too: removing the new containers (acme-dev-web-11, acme-dev-web-12: device or resource"
        " busy); letting nginx find services by their names ([Errno 28] No space left on device)."
    )


def test_new_containers_that_nobody_has_seen_are_removed_too(rolling, monkeypatch) -> None:
    """The engine gives no answer to the look that follows their making."""
    real, calls = rolling.containers, []

    def containers(env: object) -> list[Container]:
        calls.append(env)
        if len(calls) == 4:
            raise engine.TimedOut("no answer")
        return real(env)

    monkeypatch.setattr(engine, "containers", containers)
    with pytest.raises(OpsError, match="no answer"):
        rolling.rollout.run()
    assert {each.id for each in rolling.all} == {"old1", "old2", "nginx"}


def test_a_closed_output_does_not_skip_the_way_back(rolling, monkeypatch) -> None:
    rolling.dies = "start"

    def closed(_text: str, *_style: str) -> None:
        if ("start", *NEW) in rolling.lines:
            raise BrokenPipeError

    monkeypatch.setattr(roll.console, "say", closed)
    with pytest.raises(KeyboardInterrupt):
        rolling.rollout.run()
    assert {each.id for each in rolling.all} == {"old1", "old2", "nginx"}


def test_without_nginx_there_is_nothing_to_switch(rolling) -> None:
    rolling.all = [each for each in rolling.all if each.id != "nginx"]
    rolling.rollout.run()
    assert {each.id for each in rolling.all} == set(NEW)
    assert not any(line[0] in {"point", "drain", "settle"} for line in rolling.lines)


def test_fewer_need_nothing_new(rolling, old) -> None:
    rolling.rollout.moves = [move(replace(WEB, replicas=1), old[:2], lambda _each: True)]
    rolling.rollout.run()
    assert rolling.lines == [
        ("point", "10.0.0.1"),
        ("drain",),
        ("kill", "--signal", "TERM", "old2"),
        ("stop", "old2"),
        ("rm", "--force", "old2"),
        ("point",),
    ]


def test_who_stays_and_who_goes(make_container) -> None:
    well, other = make_container("web", 1), make_container("web", 2)
    sick = make_container("web", 3, health="unhealthy")
    assert move(WEB, [well, other, sick], lambda each: each is not other) == Move(WEB, (well,), 1, (other, sick))
    assert move(WEB, [well, other], lambda _each: True) == Move(WEB, (well, other))
    assert str(Move(WEB, (well,), 1, (other, sick))) == "web (1 new, 2 to go, 1 stay)"


def test_a_stubborn_one_is_told(rolling, make_container) -> None:
    assert roll.stop([make_container("web", id="stubborn"), make_container("web", id="good")]) == ["stubborn"]


def test_create_command_line() -> None:
    assert roll.create_argv({"web": 4, "api": 2}) == [
        *("up", "--no-start", "--no-deps", "--no-recreate", "--no-build", "--pull", "never", "--quiet-pull"),
        *("--scale", "web=4", "--scale", "api=2", "web", "api"),
    ]
