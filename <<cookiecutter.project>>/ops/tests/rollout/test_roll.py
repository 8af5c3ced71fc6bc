"""Rollouts over an engine made of lists: what is done in which order, and the way back from every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ops import engine
from ops.base.errors import CRASHED, NOT_READY, SMOKE, OpsError
from ops.engine import Completed, Container
from ops.parts.haproxy import pool
from ops.parts.haproxy.pool import Server
from ops.parts.nginx import edge
from ops.parts.nginx.edge import Reply
from ops.rollout import gate, roll
from ops.rollout.roll import Move, Rollout, move
from ops.stack.model import Service, Stack

WEB = Service("web", "acme/web:1", replicas=2, built=True, has_health=True)
SERVING = "acme_serving"
ENTRY = {
    "restart": "always",
    "labels": {"ops.port": "8000", "ops.ready": "/up"},
    "networks": {"serving": {"aliases": ["web.serving"]}},
}
DECLARED = Stack("acme-dev", {"web": WEB}, {"services": {"web": ENTRY}, "networks": {"serving": {"name": SERVING}}})


class Engine:
    """Containers in a list, and the lines that changed them. fate: what becomes of a container that is started."""

    def __init__(self, containers: list[Container]) -> None:
        self.all = containers
        self.lines: list[tuple[str, ...]] = []
        self.fate: Callable[[Container], Container] = lambda each: replace(each, state="running", health="healthy")
        self.dies = ""  # a step during which everything ends
        self.open = 0  # requests in the old containers
        self.reply = Reply(200, True)  # what new ones answer nginx

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
                        health="", restart_policy="always",
                        addresses={"net": f"10.0.0.{number}", SERVING: f"10.9.0.{number}"},
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

    # ── HAProxy ──

    def keep_out(self, containers: list[Container], network: str) -> None:
        ids = [each.id for each in containers]
        self.note("keep out", *ids)
        self._network(ids, lambda each: {name: ip for name, ip in each.addresses.items() if name != network})

    def let_in(self, containers: list[Container], network: str, _entries: object, canary: bool) -> None:
        ids = [each.id for each in containers]
        self.note("let in as canary" if canary else "let in", *ids)
        self._network(ids, lambda each: {**each.addresses, network: f"10.9.0.{each.number}"})

    def _network(self, ids: list[str], change: Callable[[Container], dict[str, str]]) -> None:
        self.all = [replace(each, addresses=change(each)) if each.id in ids else each for each in self.all]

    def servers(self, _haproxy: Container) -> list[Server]:
        return [
            Server("web", each.id, each.addresses[SERVING], "DRAIN", open=self.open)
            for each in self.all
            if SERVING in each.addresses and each.service == "web"
        ]

    def inspect(self, ids: list[str], _kind: str = "") -> list[dict]:
        return [{"Name": f"/{each}", "State": {"ExitCode": 137 if each == "stubborn" else 0}} for each in ids]


@pytest.fixture
def old(make_container) -> list[Container]:
    """Two containers of web that serve, nginx and HAProxy."""
    web = [
        make_container(
            "web", n, id=f"old{n}", restart_policy="always", addresses={"net": f"10.0.0.{n}", SERVING: f"10.9.0.{n}"}
        )
        for n in (1, 2)
    ]
    nginx = make_container("nginx", id="nginx", addresses={"net": "10.0.0.9"})
    return [*web, nginx, make_container("haproxy", id="haproxy", addresses={SERVING: "10.9.0.8"})]


@pytest.fixture
def rolling(env, old, monkeypatch):
    """Replaces web on a made-up engine; gives the engine, ready to be looked at."""
    docker = Engine(old)
    monkeypatch.setattr(engine, "processors", lambda: 4)
    for name in ("containers", "look", "compose", "docker", "inspect"):
        monkeypatch.setattr(engine, name, getattr(docker, name))
    monkeypatch.setattr(engine, "logs", lambda *_args: ["the last words"])
    for name in ("keep_out", "let_in", "servers"):
        monkeypatch.setattr(pool, name, getattr(docker, name))
    monkeypatch.setattr(
        pool, "await_choice", lambda _haproxy, wanted, _seconds: docker.note("await", *sorted(wanted["web"]))
    )
    monkeypatch.setattr(pool, "take_out", lambda _haproxy, addresses: docker.note("take out", *sorted(addresses)))
    monkeypatch.setattr(pool, "reset", lambda _haproxy: docker.note("reset"))
    monkeypatch.setattr(edge, "ask", lambda *_args: "")
    monkeypatch.setattr(edge, "replies", lambda _nginx, urls: dict.fromkeys(urls, docker.reply))
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.01)
    for name in ("_DRAIN_PAUSE", "_START_PAUSE", "_LISTEN_SECONDS"):
        monkeypatch.setattr(roll, name, 0.01)
    env.values.update(ROLLOUT_STEADY_SECONDS="0", ROLLOUT_DRAIN_SECONDS="1")
    docker.rollout = Rollout(env, None, DECLARED, [move(WEB, old[:2], lambda _each: False)], 1)
    return docker


NEW = ("new11", "new12")
STAYED = {"old1", "old2", "nginx", "haproxy"}
BESIDE = [
    ("reset",),
    ("create", "web=4"),
    ("keep out", *NEW),
    ("update", "--restart", "no", "--cpu-shares", "32", *NEW),
    ("start", *NEW),
]
IN = [
    ("let in", *NEW),
    ("update", "--restart", "always", "--cpu-shares", "1024", *NEW),
    ("await", "10.9.0.11", "10.9.0.12"),
]
BACK = [("reset",), ("rm", "--force", *NEW), ("reset",)]


def test_new_beside_old_then_in_and_out_drain_stop(rolling) -> None:
    rolling.rollout.run()
    assert rolling.lines == [
        *BESIDE,
        *IN,
        ("take out", "10.9.0.1", "10.9.0.2"),
        ("kill", "--signal", "TERM", "old1", "old2"),
        ("stop", "old1", "old2"),
        ("rm", "--force", "old1", "old2"),
        ("reset",),
    ]


def test_one_that_answers_nginx_need_not_wait_for_its_health_check(rolling) -> None:
    rolling.fate = lambda each: replace(each, state="running", health="starting")
    rolling.rollout.run()
    assert {each.id for each in rolling.all} == {*NEW, "nginx", "haproxy"}


def test_one_that_neither_answers_nor_is_healthy_is_waited_for_and_leads_back(rolling) -> None:
    rolling.fate = lambda each: replace(each, state="running", health="starting")
    rolling.reply = Reply(503, True)
    with pytest.raises(OpsError, match=r"web was not healthy within 1 s \(it is starting\): it answers /up with 503"):
        rolling.rollout.run()
    assert rolling.lines == [*BESIDE, *BACK]


def says(rolling, ready: str, has_health: bool) -> None:
    """web has this label ops.ready, and a health check or none."""
    entry = {**ENTRY, "labels": {"ops.port": "3000", "ops.ready": ready}}
    service = replace(WEB, has_health=has_health)
    document = {**DECLARED.document, "services": {"web": entry}}
    rolling.rollout.declared = replace(DECLARED, services={"web": service}, document=document)
    rolling.rollout.moves = [replace(each, service=service) for each in rolling.rollout.moves]
    rolling.fate = lambda each: replace(each, state="running", health="healthy" if has_health else "")


@pytest.mark.parametrize(
    ("ready", "has_health", "reply"),
    [("/up", False, Reply(200, True)), ("tcp", False, Reply(0, True)), ("healthcheck", True, Reply(404, True))],
)
def test_each_way_to_be_ready(rolling, ready: str, has_health: bool, reply: Reply) -> None:
    says(rolling, ready, has_health)
    rolling.reply = reply
    rolling.rollout.run()
    assert {each.id for each in rolling.all} == {*NEW, "nginx", "haproxy"}


@pytest.mark.parametrize(("ready", "has_health"), [("/up", False), ("tcp", False), ("healthcheck", True)])
def test_a_port_that_nobody_listens_on_leads_back_and_is_named(rolling, ready: str, has_health: bool) -> None:
    says(rolling, ready, has_health)
    rolling.reply = Reply()
    with pytest.raises(OpsError, match="does not answer on port 3000; its label ops.port must be the port") as caught:
        rolling.rollout.run()
    assert caught.value.code == NOT_READY
    assert rolling.lines == [*BESIDE, *BACK]


@pytest.mark.parametrize(("addresses", "seconds"), [({}, 1), ({"net": "10.0.0.11"}, pool.CHOSEN_SECONDS)])
def test_haproxy_gives_one_that_nobody_could_ask_time_to_start(rolling, monkeypatch, addresses, seconds) -> None:
    """It is in the network of those that get requests and in no other one."""
    says(rolling, "/up", has_health=False)
    rolling.fate = lambda each: replace(each, state="running", health="", addresses=addresses)
    monkeypatch.setattr(gate, "STEADY_SECONDS", 0)
    given: list[float] = []
    monkeypatch.setattr(pool, "await_choice", lambda _haproxy, _wanted, seconds: given.append(seconds))
    rolling.rollout.run()
    assert given == [seconds]


def test_one_without_a_health_check_gets_no_requests_before_it_answers(rolling, monkeypatch) -> None:
    says(rolling, "/up", has_health=False)
    asked: list[int] = []

    def replies(_nginx: Container, urls: list[str]) -> dict[str, Reply]:
        asked.append(("let in", *NEW) in rolling.lines)
        return dict.fromkeys(urls, Reply(503 if len(asked) < 5 else 200, True))

    monkeypatch.setattr(edge, "replies", replies)
    rolling.rollout.run()
    assert len(asked) >= 5 and not any(asked)


def test_open_requests_are_waited_for_but_not_for_ever(rolling, capsys) -> None:
    rolling.open = 3
    rolling.rollout.run()
    assert (
        "web: 6 requests are still open in the old containers after 1 s (ROLLOUT_DRAIN_SECONDS)"
        in capsys.readouterr().err
    )
    assert ("stop", "old1", "old2") in rolling.lines


def test_a_service_may_have_a_limit_of_its_own(env, rolling, capsys) -> None:
    rolling.open = 1
    move = rolling.rollout.moves[0]
    service = replace(move.service, labels={**move.service.labels, "ops.drain": "0"})
    assert roll.drain_limit(env, move.service) == (1, "ROLLOUT_DRAIN_SECONDS")
    rolling.rollout.moves = [replace(move, service=service)]
    rolling.rollout.run()
    assert "web: 2 requests are still open in the old containers after 0 s (ops.drain)" in capsys.readouterr().err


def test_one_that_comes_back_with_another_address_is_taken_out_again(rolling, monkeypatch) -> None:
    looks: list[int] = []

    def servers(_haproxy: Container) -> list[Server]:
        looks.append(1)
        return [Server("web", "s3", "10.9.0.1", "UP" if len(looks) == 1 else "DRAIN", open=int(len(looks) < 3))]

    monkeypatch.setattr(pool, "servers", servers)
    rolling.rollout.run()
    assert [line for line in rolling.lines if line[0] == "take out"] == [("take out", "10.9.0.1", "10.9.0.2")] * 2


def test_a_service_without_a_port_has_no_pool(rolling, monkeypatch) -> None:
    document = {"services": {"web": {"restart": "always"}}, "networks": {}}
    rolling.rollout.declared = replace(DECLARED, document=document)
    monkeypatch.setattr(pool, "await_choice", lambda _haproxy, wanted, _seconds: rolling.note("await", str(wanted)))
    rolling.rollout.run()
    assert ("keep out",) in rolling.lines and ("let in",) in rolling.lines and ("await", "{}") in rolling.lines
    assert {each.id for each in rolling.all} == {*NEW, "nginx", "haproxy"}


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


def test_a_crash_while_draining_leads_back_over_the_pool(rolling, monkeypatch) -> None:
    rolling.open = 1
    looks: list[int] = []

    def crash(haproxy: Container) -> list[Server]:
        looks.append(1)
        if len(looks) == 2:
            rolling.all = [replace(each, restarts=1) if each.id == "new12" else each for each in rolling.all]
        return rolling.servers(haproxy)

    monkeypatch.setattr(pool, "servers", crash)
    monkeypatch.setattr(pool, "drain", lambda _haproxy, limits: rolling.note("drain", *sorted(limits.items())))
    with pytest.raises(OpsError, match="web restarted once"):
        rolling.rollout.run()
    new = (("10.9.0.11", 1), ("10.9.0.12", 1))
    assert rolling.lines[-4:] == [BACK[0], ("drain", *new), *BACK[1:]]
    assert {each.id for each in rolling.all} == STAYED


@pytest.mark.parametrize("step", ["create", "keep out", "update", "start", "let in", "await", "take out"])
def test_an_interruption_before_the_old_ones_are_stopped_leads_back(rolling, step: str, monkeypatch) -> None:
    monkeypatch.setattr(pool, "drain", lambda *_args: None)
    rolling.dies = step
    with pytest.raises(KeyboardInterrupt):
        rolling.rollout.run()
    assert rolling.lines[-1] == ("reset",)
    assert {each.id for each in rolling.all} == STAYED


@pytest.mark.parametrize("number", range(1, 9))
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
    assert {each.id for each in rolling.all} >= STAYED


def test_a_way_back_that_fails_hides_nothing_and_claims_nothing(rolling, monkeypatch) -> None:
    rolling.fate = lambda each: replace(each, state="exited", health="", exit_code=3)
    real = rolling.docker

    def stubborn(verb: str, *args: str, **options: object) -> Completed:
        if verb == "rm":
            return Completed((), 1, "", "device or resource busy")
        return real(verb, *args, **options)

    def full(_haproxy: object) -> None:
        if ("start", *NEW) in rolling.lines:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "docker", stubborn)
    monkeypatch.setattr(pool, "reset", full)
    with pytest.raises(OpsError, match=r"web stopped with exit code 3\.") as caught:
        rolling.rollout.run()
    assert caught.value.code == CRASHED
    assert "were removed" not in caught.value.remedy
    assert caught.value.message.endswith(
        "The way back failed too: choosing the old containers again ([Errno 28] No space left on device); removing the"
        " new containers (acme-dev-web-11, acme-dev-web-12: device or resource busy); resetting HAProxy ([Errno 28] No"
        " space left on device)."
    )


def test_new_containers_that_nobody_has_seen_are_removed_too(rolling, monkeypatch) -> None:
    """The engine gives no answer to the look that follows their making."""
    real, calls = rolling.containers, []

    def containers(env: object) -> list[Container]:
        calls.append(env)
        if len(calls) == 3:
            raise engine.TimedOut("no answer")
        return real(env)

    monkeypatch.setattr(engine, "containers", containers)
    with pytest.raises(OpsError, match="no answer"):
        rolling.rollout.run()
    assert {each.id for each in rolling.all} == STAYED


def test_a_closed_output_does_not_skip_the_way_back(rolling, monkeypatch) -> None:
    rolling.dies = "start"

    def closed(_text: str, *_style: str) -> None:
        if ("start", *NEW) in rolling.lines:
            raise BrokenPipeError

    monkeypatch.setattr(roll.console, "say", closed)
    with pytest.raises(KeyboardInterrupt):
        rolling.rollout.run()
    assert {each.id for each in rolling.all} == STAYED


def test_without_haproxy_and_nginx_there_is_nobody_to_tell(rolling, capsys) -> None:
    rolling.all = [each for each in rolling.all if each.id not in {"nginx", "haproxy"}]
    rolling.rollout.run()
    assert {each.id for each in rolling.all} == set(NEW)
    assert not any(line[0] in {"reset", "await", "take out"} for line in rolling.lines)
    assert "HAProxy does not run: requests that are open in the old containers may be lost" in capsys.readouterr().err


def test_fewer_need_nothing_new(rolling, old) -> None:
    rolling.rollout.moves = [move(replace(WEB, replicas=1), old[:2], lambda _each: True)]
    rolling.rollout.run()
    assert rolling.lines == [
        ("reset",),
        ("take out", "10.9.0.2"),
        ("kill", "--signal", "TERM", "old2"),
        ("stop", "old2"),
        ("rm", "--force", "old2"),
        ("reset",),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_a_canary_gets_its_share_and_takes_nothing_out(rolling, old, monkeypatch, fails: bool) -> None:
    monkeypatch.setattr(roll, "weigh", lambda _env, _stack, _haproxy, shares: rolling.note("weigh", str(dict(shares))))
    monkeypatch.setattr(pool, "drain", lambda *_args: None)
    rolling.rollout.moves, rolling.rollout.canary = [Move(WEB, tuple(old[:2]), 2)], {"web": 11}
    if fails:
        rolling.dies = "await"
        with pytest.raises(KeyboardInterrupt):
            rolling.rollout.run()
        assert rolling.lines[-3:] == [("rm", "--force", *NEW), ("weigh", "{}"), ("reset",)]
        return
    rolling.rollout.run()
    assert rolling.lines[len(BESIDE) : -1] == [("weigh", "{'web': 11}"), ("let in as canary", *NEW), *IN[1:]]
    assert {each.id for each in rolling.all} == {*STAYED, *NEW}


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
