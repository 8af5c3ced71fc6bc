"""The lock: its command line, what it says, when it is stale. That it holds is shown on a real engine."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.state import lock
from ops.state.lock import Holder


def test_command_line() -> None:
    line = lock.run_argv("acme-dev-change-lock", "nginx:1", {"ops.holder": "ann@laptop"})
    assert line[:5] == ["docker", "run", "--interactive", "--rm", "--name"]
    assert line[-3:] == ["--label", "ops.holder=ann@laptop", "nginx:1"]
    assert {"--network", "--read-only", "--cap-drop", "--pull"} <= set(line)


def test_who_holds_it(make_container) -> None:
    labels = {"ops.holder": "ann@laptop", "ops.purpose": "deploy --env prod", "ops.since": "1000"}
    held = lock.holder_of(make_container("", labels=labels))
    assert held.describe(1125).startswith("invoke deploy --env prod by ann@laptop since ")
    assert held.describe(1125).endswith("(2 min 5 s)")
    assert lock.holder_of(make_container("", created=7.0)).since == 7.0


@pytest.mark.parametrize(
    ("state", "created", "stale"),
    [("running", 0, False), ("created", 995, False), ("created", 0, True), ("exited", 999, True), ("dead", 999, True)],
)
def test_when_nobody_holds_it_any_more(make_container, state: str, created: float, stale: bool) -> None:
    assert lock.stale(make_container("", state=state, created=created), 1000) is stale


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A lock that somebody holds; gives the docker lines that were run."""
    lines: list[tuple[str, ...]] = []
    found = Holder("ann@laptop", "deploy --env dev", 0, "abc")
    monkeypatch.setattr(lock, "holder", lambda _env: found)
    monkeypatch.setattr(engine, "docker", lambda *args: lines.append(args))
    return lines


def test_breaking_it(env, held, capsys) -> None:
    lock.unlock(env, assume_yes=True)
    assert held == [("rm", "--force", "abc")]
    assert "dev is locked: invoke deploy --env dev by ann@laptop" in capsys.readouterr().out


def test_breaking_it_asks_first(env, held, monkeypatch) -> None:
    monkeypatch.setattr(lock.console, "confirm", lambda *_args: False)
    with pytest.raises(OpsError, match="Nothing was changed"):
        lock.unlock(env)
    assert held == []


def test_nothing_to_break(env, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lock, "holder", lambda *_args: None)
    lock.unlock(env)
    assert capsys.readouterr().out == "nobody holds a lock of dev\n"
