"""Stop and down: questions, command lines, and what is left."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext

import pytest

from ops import engine
from ops.base.errors import FAILED, USAGE, OpsError
from ops.commands import stop
from ops.commands.stop import Leftovers
from ops.engine import Completed
from ops.stack import images
from ops.stack.model import Service

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
def fake(monkeypatch, make_stack):
    def make(*left: Leftovers) -> Engine:
        made = Engine(*left)
        monkeypatch.setattr(stop, "leftovers", made.leftovers)
        monkeypatch.setattr(stop, "volume_sizes", lambda: {"acme-dev_data": 2048})
        monkeypatch.setattr(engine, "logged", made.logged)
        monkeypatch.setattr(engine, "docker", made.docker)
        monkeypatch.setattr(stop.lock, "hold", lambda *_args: nullcontext())
        monkeypatch.setattr(stop, "drain", lambda *_args: made.lines.append(["drain"]))
        monkeypatch.setattr(stop.model, "load", lambda _env: make_stack())
        monkeypatch.setattr(engine, "containers", lambda _env: [])
        return made

    return make


def test_down_keeps_the_data(env, fake, capsys) -> None:
    made = fake(FULL, FULL, Leftovers((), (), FULL.volumes))
    stop.down(env)
    assert made.lines == [["drain"], engine.compose_argv(env, "down", "--remove-orphans", all_profiles=True)]
    assert capsys.readouterr().out.endswith("dev is down: 1 containers, 1 networks removed, 1 volumes kept\n")


def test_down_when_it_is_down(env, fake, capsys) -> None:
    made = fake(Leftovers((), (), FULL.volumes))
    stop.down(env)
    assert made.lines == []
    assert "nothing to remove: dev is down; 1 volumes with its data are kept" in capsys.readouterr().out


def test_down_with_volumes_names_what_will_be_lost(env, fake, capsys) -> None:
    made = fake(FULL, FULL, EMPTY)
    stop.down(env, volumes=True, assume_yes=True)
    assert made.lines == [
        ["drain"],
        engine.compose_argv(env, "down", "--remove-orphans", "--volumes", all_profiles=True),
    ]
    assert "  acme-dev_data  2.0 KiB\n" in capsys.readouterr().out


def test_down_with_volumes_forgets_what_was_deployed(env, fake) -> None:
    left = Leftovers((), (), ("acme-dev-state", "acme-dev_data"))
    made = fake(left, left, EMPTY)
    stop.down(env, volumes=True, assume_yes=True)
    assert made.lines[2:] == [
        ["rm", "--force", "acme-dev-state"],
        ["volume", "rm", "--force", "acme-dev-state"],
        ["rmi", "--force", "acme-dev-state"],
        ["images", "--filter", "reference=acme-dev/release/*", "--format", "{{.Repository}}:{{.Tag}}"],
    ]


def test_with_the_releases_go_the_names_that_kept_their_images(env, monkeypatch) -> None:
    lines: list[tuple[str, ...]] = []

    def docker(*args: str, **_options: object) -> Completed:
        lines.append(args)
        return Completed(args, 0, "acme-dev/release/web:0123\nacme-dev/release/api:4567\n", "")

    monkeypatch.setattr(engine, "docker", docker)
    images.forget(env)
    assert lines[1] == ("rmi", "acme-dev/release/web:0123", "acme-dev/release/api:4567")


def test_down_with_volumes_needs_somebody_who_agrees(env, fake) -> None:
    made = fake(FULL)
    with pytest.raises(OpsError) as caught:
        stop.down(env, volumes=True)
    assert caught.value.code == USAGE
    assert made.lines == []


@pytest.mark.parametrize(("answer", "removed"), [("prod", True), ("y", False)])
def test_in_production_its_name_must_be_typed(project, fake, monkeypatch, answer: str, removed: bool) -> None:
    from ops.base import environments

    made = fake(FULL, FULL, EMPTY)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    monkeypatch.setattr(stop.console.confirm, "__defaults__", (False, "", lambda prompt: answer))
    prod = environments.load("prod", project)
    if removed:
        stop.down(prod, volumes=True)
    else:
        with pytest.raises(OpsError, match="Nothing was removed"):
            stop.down(prod, volumes=True)
    assert bool(made.lines) is removed


def test_down_removes_what_compose_does_not_know(env, fake) -> None:
    made = fake(FULL, FULL, Leftovers(("old",), ("net",), ()), EMPTY)
    stop.down(env)
    assert made.lines[2:] == [["rm", "--force", "old"], ["network", "rm", "net"]]


def test_down_fails_when_something_is_left(env, fake) -> None:
    fake(FULL, FULL)
    with pytest.raises(OpsError) as caught:
        stop.down(env)
    assert caught.value.code == FAILED
    assert caught.value.message == (
        "dev is not down, this is left: container acme-dev-web-1, network acme-dev_backend."
    )


def test_stop_reaches_switched_off_and_undeclared_services(env, fake, make_container, monkeypatch, capsys) -> None:
    made = fake(EMPTY)
    both = [make_container("web"), make_container("old")]
    looks = iter([both, both, [make_container("old")]])
    monkeypatch.setattr(engine, "containers", lambda env: next(looks))
    stop.stop(env)
    assert made.lines == [["drain"], engine.compose_argv(env, "stop", all_profiles=True), ["stop", "acme-dev-old-1"]]
    assert "stopped 2 containers" in capsys.readouterr().out


def test_nothing_to_stop(env, fake, make_container, monkeypatch, capsys) -> None:
    fake(EMPTY)
    monkeypatch.setattr(engine, "containers", lambda env: [make_container("web", state="exited")])
    stop.stop(env)
    assert capsys.readouterr().out == "nothing to stop: no container of dev runs\n"


@pytest.mark.parametrize(
    ("text", "size"), [("12.5MB", 12_500_000), ("0B", 0), ("1.2kB", 1200), ("3GB", 3 * 10**9), ("N/A", -1), ("", -1)]
)
def test_docker_sizes(text: str, size: int) -> None:
    assert stop._bytes(text) == size


@pytest.fixture
def broken(monkeypatch, make_stack):
    """Compose files that do not resolve."""

    def load(_env):
        raise OpsError("The Compose files do not resolve: line 2")

    return lambda: monkeypatch.setattr(stop.model, "load", load)


def test_stop_with_a_broken_compose_file_stops_by_label(env, fake, broken, make_container, monkeypatch, capsys) -> None:
    made = fake(EMPTY)
    broken()
    monkeypatch.setattr(engine, "containers", lambda env: [make_container("web"), make_container("db")])
    stop.stop(env)
    assert made.lines == [["drain"], ["stop", "acme-dev-web-1", "acme-dev-db-1"]]
    assert "do not resolve: line 2. All containers of dev are stopped at once" in capsys.readouterr().err


def test_down_with_a_broken_compose_file_removes_by_label(env, fake, broken, make_container, monkeypatch) -> None:
    made = fake(FULL, FULL, FULL, EMPTY)
    broken()
    monkeypatch.setattr(engine, "containers", lambda env: [make_container("web")])
    stop.down(env, volumes=True, assume_yes=True)
    assert made.lines == [
        ["drain"],
        ["stop", "acme-dev-web-1"],
        ["rm", "--force", "acme-dev-web-1"],
        ["network", "rm", "acme-dev_backend"],
        ["volume", "rm", "acme-dev_data"],
    ]


def test_down_asks_under_the_lock(env, fake, monkeypatch) -> None:
    order = []

    @contextmanager
    def hold(*_args):
        order.append("lock")
        yield
        order.append("unlock")

    fake(FULL, FULL, EMPTY)
    monkeypatch.setattr(stop.lock, "hold", hold)
    monkeypatch.setattr(stop.console, "confirm", lambda *_args, **_options: order.append("ask") or True)
    stop.down(env, volumes=True)
    assert order == ["lock", "ask", "unlock"]


def test_nothing_is_drained_without_nginx(make_container, monkeypatch) -> None:
    lines = []
    monkeypatch.setattr(engine, "docker", lambda *args, **_options: lines.append(args))
    stop.drain([make_container("web")], None)
    assert lines == []


def test_only_our_own_services_are_told_that_their_drain_is_done(make_stack, make_container, monkeypatch) -> None:
    lines = []
    declared = make_stack(
        Service("web", "web", built=True), Service("postgres", "postgres:18", labels={"ops.tier": "data"})
    )
    monkeypatch.setattr(engine, "docker", lambda *args, **_options: lines.append(args))
    monkeypatch.setattr(stop.edge, "close", lambda _nginx: None)
    stop.drain([make_container("nginx"), make_container("web"), make_container("postgres")], declared)
    assert lines == [("kill", "--signal", "TERM", "acme-dev-web-1")]
