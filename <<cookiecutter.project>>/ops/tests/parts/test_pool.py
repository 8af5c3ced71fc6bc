"""What HAProxy says of its servers, and what it is told."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable

import pytest

from ops import engine
from ops.base.errors import NOT_READY, OpsError
from ops.engine import Completed, Container
from ops.parts.haproxy import pool
from ops.parts.haproxy.pool import Server

HEAD = "# pxname,svname,qcur,scur,stot,status,hrsp_5xx,check_status,check_code,addr,ttime,hanafail,\n"
STAT = (
    HEAD
    + """\
web,s1,0,2,9,UP,1,L7OK,200,10.9.0.2:8000,12,0,
web,s2,1,0,9,DOWN 3/40,10,* L7OK,200,10.9.0.3:8000,0,1,
web,s3,0,0,0,DOWN,0,L7STS,503,10.9.0.4:8000,,0,
web,s4,0,0,0,MAINT (resolution),0,,,,,,
web:any,s1,0,3,0,no check,0,,,10.9.0.2:8000,0,0,
"""
)
STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 web 1 s1 10.9.0.2 2 0 1
3 web 2 s2 10.9.0.3 2 8 1
3 web 4 s4 - 0 40 1
4 web:any 1 s1 - 0 32 1

"""


class Haproxy:
    """Answers like its command line; commands are noted."""

    def __init__(self, stat: str = STAT) -> None:
        self.stat, self.commands = stat, []

    def exec_(self, _container: str, argv: list[str], **_options: object) -> Completed:
        self.commands.append(argv[-1])
        answers = {"show stat -1 4 -1": self.stat, "show servers state": STATE}
        return Completed((), 0, answers.get(argv[-1], ""), "")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Haproxy]:
    def put(*args: str) -> Haproxy:
        haproxy = Haproxy(*args)
        monkeypatch.setattr(engine, "exec_", haproxy.exec_)
        monkeypatch.setattr(pool, "CHOSEN_SECONDS", 0.1)
        return haproxy

    return put


@pytest.fixture
def haproxy(make_container) -> Container:
    return make_container("haproxy")


def test_servers_and_how_they_are() -> None:
    found = pool.parse(STAT)
    assert [(each.name, each.address, each.state, each.open) for each in found] == [
        ("s1", "10.9.0.2", "UP", 2),
        ("s2", "10.9.0.3", "DOWN", 1),
        ("s3", "10.9.0.4", "DOWN", 0),
        ("s1", "10.9.0.2", "no", 3),
    ]
    assert [each.chosen for each in found] == [True, False, False, False]
    # Its own check is fine, its answers are not.
    assert [each.ejected for each in found] == [False, True, False, False]
    assert pool.describe(found[2]) == "web 10.9.0.4: DOWN, its check gives L7STS 503, 0 open"


def test_one_of_which_nothing_is_known_has_no_requests() -> None:
    """So no drain waits for it, and no canary is judged by it."""
    found = Server("web", "s1", "10.9.0.2", "UP")
    assert (found.open, found.errors, found.requests, found.took_ms, found.ejections) == (0, 0, 0, 0, 0)


def test_its_command_line_is_asked_word_for_word(haproxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the shell of its container; here by the one of this machine, at another port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []
        port = listener.getsockname()[1]
        listener.settimeout(20)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1000))
                connection.sendall(STAT.encode())

        def exec_(container: str, argv: list[str], check: bool) -> Completed:
            assert (container, check) == (haproxy.id, False)
            line = [each.replace("/9999", f"/{port}") for each in argv]
            done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
            return Completed(tuple(line), done.returncode, done.stdout, done.stderr)

        monkeypatch.setattr(engine, "exec_", exec_)
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert pool.servers(haproxy) == pool.parse(STAT)
        thread.join()
    assert heard == [b"show stat -1 4 -1\n"]
    # Nobody listens any more.
    with pytest.raises(OpsError, match="HAProxy does not answer: .*refused"):
        pool.servers(haproxy)


def test_one_that_was_just_taken_out_for_its_answers() -> None:
    assert Server("web", "s1", "10.9.0.2", "DOWN", "HANA", ejections=1).ejected


def test_taking_out_in_both_pools(use, haproxy) -> None:
    told = use()
    pool.take_out(haproxy, {"10.9.0.2"})
    pool.take_out(haproxy, {"10.1.1.1"})
    assert [each for each in told.commands if not each.startswith("show")] == [
        "set server web/s1 state drain;set server web:any/s1 state drain",
    ]


def test_a_reset_reaches_empty_slots_too(use, haproxy) -> None:
    told = use()
    pool.reset(haproxy)
    assert told.commands[-1] == "set server web/s2 state ready;set server web/s4 state ready"


@pytest.mark.parametrize("pooled", ["web", "web:any"])
def test_draining_waits_for_open_requests_wherever_they_came_in(use, haproxy, monkeypatch, pooled: str) -> None:
    monkeypatch.setattr(pool, "_PAUSE", 0.01)
    told = use()
    looks = [Server(pooled, "s1", "10.9.0.2", "DRAIN", open=count) for count in (0, 2, 1, 0)]
    monkeypatch.setattr(pool, "servers", lambda _haproxy: [looks.pop(0)])
    pool.drain(haproxy, {"10.9.0.2": 5})
    assert looks == [] and told.commands == []


def test_draining_has_an_end(use, haproxy, monkeypatch) -> None:
    monkeypatch.setattr(pool, "_PAUSE", 0.01)
    told = use()
    pool.drain(haproxy, {"10.9.0.2": 0.05, "10.9.0.3": 0.05})
    assert told.commands.count("show stat -1 4 -1") > 2


def test_draining_waits_for_each_as_long_as_that_may_take(use, haproxy, monkeypatch) -> None:
    monkeypatch.setattr(pool, "_PAUSE", 0.01)
    use()
    looks = [[Server("web", "s1", "10.9.0.2", "DRAIN", open=1), Server("api", "s1", "10.9.0.3", "DRAIN", open=count)]
             for count in (1, 1, 0)]  # fmt: skip
    monkeypatch.setattr(pool, "servers", lambda _haproxy: looks.pop(0))
    pool.drain(haproxy, {"10.9.0.2": 0, "10.9.0.3": 5})
    assert looks == []


def test_waiting_until_it_chooses_them(use, haproxy) -> None:
    use()
    pool.await_choice(haproxy, {"web": {"10.9.0.2"}})
    pool.await_choice(haproxy, {})
    with pytest.raises(OpsError, match="does not choose the new containers of web") as caught:
        pool.await_choice(haproxy, {"web": {"10.9.0.2", "10.9.0.4"}}, seconds=0)
    assert "web 10.9.0.4: DOWN, its check gives L7STS 503" in caught.value.message
    assert "ops.port" not in caught.value.message
    assert caught.value.code == NOT_READY


@pytest.mark.parametrize(
    ("state", "check", "ejections", "told"),
    [
        ("UP", "L7OK", 1, (True, False, False)),
        ("DOWN", "L7OK", 1, (False, True, False)),
        ("DOWN", "L7OK", 0, (False, False, True)),
        ("DOWN", "L7STS", 0, (False, False, False)),
        ("DRAIN", "L7OK", 0, (False, False, False)),
    ],
)
def test_why_one_gets_no_requests(state: str, check: str, ejections: int, told: tuple[bool, ...]) -> None:
    found = Server("web", "s1", "10.9.0.4", state, check, ejections=ejections)
    assert (found.chosen, found.ejected, found.recovering) == told


def test_a_port_that_nobody_listens_on_is_named(monkeypatch, haproxy) -> None:
    monkeypatch.setattr(pool, "servers", lambda _haproxy: [Server("web", "s1", "10.9.0.4", "DOWN", "L4CON")])
    with pytest.raises(OpsError) as caught:
        pool.await_choice(haproxy, {"web": {"10.9.0.4"}}, seconds=0)
    assert caught.value.message.endswith("Nothing listens on the port that the label ops.port of web names.")


def test_one_that_does_not_answer(monkeypatch, haproxy) -> None:
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), 1, "", "bash: connect: refused\n"))
    with pytest.raises(OpsError, match="HAProxy does not answer: bash: connect: refused"):
        pool.servers(haproxy)


def test_in_and_out_of_the_network(monkeypatch, make_container) -> None:
    lines: list[tuple[str, ...]] = []

    def docker(*args: str, **_options: object) -> Completed:
        lines.append(args)
        there = args[-1] == "there"
        return Completed((), int(there), "", "endpoint with name x already exists in network n" if there else "")

    monkeypatch.setattr(engine, "docker", docker)
    web = make_container("web", id="new")
    pool.keep_out([web], "acme_serving")
    entries = {"web": {"networks": {"serving": {"aliases": ["web.serving"]}}}}
    pool.let_in([web], "acme_serving", entries)
    pool.let_in([make_container("web", id="there")], "acme_serving", entries)
    names = ("--alias", "web.serving", "--alias", "web", "--alias", "acme-dev-web-1")
    assert lines[:2] == [
        ("network", "disconnect", "acme_serving", "new"),
        ("network", "connect", *names, "acme_serving", "new"),
    ]


def test_one_that_cannot_be_let_in_is_an_error(monkeypatch, make_container) -> None:
    monkeypatch.setattr(engine, "docker", lambda *_args, **_options: Completed((), 1, "", "network x not found"))
    with pytest.raises(OpsError):
        pool.let_in([make_container("web")], "x", {"web": {"networks": {"serving": None}}})


def test_a_reload_is_over_when_another_process_serves(monkeypatch, haproxy) -> None:
    pids = iter(["8", "8", "", "21"])
    lines: list[str] = []
    # nginx gives up the connections that lead to the former process
    monkeypatch.setattr(pool.time, "sleep", lambda seconds: lines.append(f"wait {seconds}"))

    def exec_(_container: str, argv: list[str], **_options: object) -> Completed:
        lines.append(argv[-1])
        pid = next(pids) if argv[-1] == "show info" else ""
        return Completed((), 0, f"Name: HAProxy\nPid: {pid}\n" if pid else "", "")

    monkeypatch.setattr(engine, "exec_", exec_)
    pool.reload(haproxy)
    check = "haproxy -c -f /etc/haproxy/stack/haproxy.cfg -f /etc/haproxy/routes && kill -USR2 1"
    assert [line for line in lines if line != "wait 0.1"] == ["show info", check, *3 * ["show info"], "wait 5"]


def test_a_configuration_that_is_refused(monkeypatch, haproxy) -> None:
    def exec_(_container: str, argv: list[str], **_options: object) -> Completed:
        return Completed((), int(argv[0] == "sh"), "Pid: 8\n", "[ALERT] unknown keyword\n")

    monkeypatch.setattr(engine, "exec_", exec_)
    with pytest.raises(OpsError, match=r"keeps the old one:\n  \[ALERT\] unknown keyword"):
        pool.reload(haproxy)
