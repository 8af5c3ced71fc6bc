"""Scale: arguments, what is kept in the .env file, and what is rolled out."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.rollout import preflight, scale
from ops.rollout.roll import Move
from ops.stack import model
from ops.stack.model import Service, Stack
from ops.state import lock


@pytest.mark.parametrize(
    ("service", "count", "complaint"),
    [
        ("postgres-primary", "2", '"postgres-primary" cannot be scaled.'),
        ("nginx", "2", '"nginx" cannot be scaled.'),
        ("wbe", "2", '"wbe" cannot be scaled.'),
        ("web", "0", '"0" is not a number of containers'),
        ("web", "-1", '"-1" is not a number of containers'),
        ("web", "x", '"x" is not a number of containers'),
        ("web", "1.5", '"1.5" is not a number of containers'),
        ("web", "", '"" is not a number of containers'),
        ("web", "²", '"²" is not a number of containers'),
        ("web", "500", '"500" is not a number of containers: give a whole number from 1 to 50.'),
    ],
)
def test_what_cannot_be_scaled(service: str, count: str, complaint: str) -> None:
    with pytest.raises(OpsError) as caught:
        scale.replicas(service, count)
    assert caught.value.message.startswith(complaint)
    assert caught.value.code == USAGE
    assert "web, api, auth-service, notification-service" in caught.value.remedy


def test_what_can_be_scaled() -> None:
    assert scale.replicas("web", "5") == ("WEB_REPLICAS", 5)
    assert scale.replicas("auth-service", "50") == ("AUTH_REPLICAS", 50)


@pytest.fixture
def scaling(env, make_container, monkeypatch):
    """Scales web, of which some containers run; gives the moves that were rolled out."""
    moves: list[Move] = []

    def run(count: str, running: int, available: int = 8 * 1024**3, states: str = "running") -> list[Move]:
        containers = [make_container("web", number, state=states) for number in range(1, running + 1)]
        monkeypatch.setattr(engine, "containers", lambda env: containers)
        declared = Stack("acme-dev", {"web": Service("web", "acme/web:1", memory_limit=1024**3)}, {"services": {}})
        found = scale.Declaration(declared.services["web"], declared)
        monkeypatch.setattr(scale, "declared_as", lambda *_args: nullcontext(found))
        monkeypatch.setattr(scale, "note", lambda *_args: None)
        monkeypatch.setattr(scale.networks, "refuse", lambda *_args: None)
        monkeypatch.setattr(model, "load", lambda env: declared)
        monkeypatch.setattr(preflight, "available_memory", lambda total=0: available)
        monkeypatch.setattr(scale, "Rollout", lambda *args: SimpleNamespace(run=lambda: moves.extend(args[3])))
        monkeypatch.setattr(lock, "hold", lambda *_args: nullcontext(SimpleNamespace(check=None)))
        scale.scale(env, "web", count)
        return moves

    return run


def test_scaling_up_adds(env, scaling, capsys) -> None:
    (step,) = scaling("5", running=2)
    assert (len(step.stay), step.fresh, step.leave) == (2, 3, ())
    assert "WEB_REPLICAS=5\n" in env.env_file.read_text()
    out = capsys.readouterr().out
    assert "config/dev/.env: WEB_REPLICAS=5 (was 2); commit it" in out
    assert "web: 2 -> 5, all healthy" in out


def test_scaling_down_takes_the_newest_away(scaling) -> None:
    (step,) = scaling("1", running=3)
    assert [each.number for each in step.stay] == [1]
    assert (step.fresh, [each.number for each in step.leave]) == (0, [2, 3])


def test_scaling_to_what_is_there_changes_nothing(env, scaling, capsys) -> None:
    before = env.env_file.read_text()
    assert scaling("2", running=2) == []
    assert env.env_file.read_text() == before
    assert capsys.readouterr().out == "nothing to change: 2 web healthy\n"


def test_scaling_what_does_not_run_is_for_the_next_deploy(env, scaling, capsys) -> None:
    assert scaling("4", running=0) == []
    assert "WEB_REPLICAS=4\n" in env.env_file.read_text()
    assert "`invoke deploy --env dev` starts 4" in capsys.readouterr().out


def test_no_room_to_scale(env, scaling) -> None:
    before = env.env_file.read_text()
    with pytest.raises(OpsError, match="There is no room for 8 more web") as caught:
        scaling("10", running=2, available=1024**3)
    assert caught.value.code == REFUSED
    assert env.env_file.read_text() == before
