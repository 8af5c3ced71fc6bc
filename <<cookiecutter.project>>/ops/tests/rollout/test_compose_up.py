"""Compose under the eyes of the gate: its command line, and what it says when it gives up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.rollout import compose_up, gate
from ops.stack.model import Service


def test_up_command_line(env) -> None:
    assert compose_up.up_argv(env, ["api", "web"], "--force-recreate") == engine.compose_argv(
        env,
        *("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull"),
        *("--force-recreate", "api", "web"),
    )


def test_a_compose_that_gives_up(env, tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    log.write_text(" Container x  Creating\nError response from daemon: driver failed: port is already allocated\n")
    error = compose_up.compose_failed(env, log)
    assert error.message == (
        "Compose could not start everything:\n  Error response from daemon: driver failed: port is already allocated"
    )
    assert error.remedy == "All of its output: up.log"


def test_an_explanation_that_is_known_comes_first(tmp_path: Path, env) -> None:
    log = tmp_path / "up.log"
    log.write_text("Error response from daemon: all predefined address pools have been fully subnetted\n")
    said = compose_up.compose_failed(env, log).message
    assert said == "The Docker engine has no address range left for another network."


def test_without_an_error_the_last_lines_are_the_reason(tmp_path: Path, env) -> None:
    log = tmp_path / "up.log"
    log.write_text("\n".join(f"line {number}" for number in range(30)))
    assert compose_up.compose_failed(env, log).message.splitlines()[1:] == ["  line 27", "  line 28", "  line 29"]
    log.write_text("an error long ago\n" + "\n".join(f"line {number}" for number in range(20)))
    assert "long ago" not in compose_up.compose_failed(env, log).message


# ── with real children ────────────────────────────────────────────────────────────────────────────────────────────────

API = Service("api", "acme/api", has_health=True)


@pytest.fixture
def bring_up(env, make_container, monkeypatch):
    """Runs a shell script in place of Compose, while these containers of api are seen."""
    monkeypatch.setattr(engine, "surroundings", lambda _env: {})
    monkeypatch.setattr(engine, "logs", lambda *_args: [])
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.05)

    def run(script: str | None, timeout: float = 20, patient: bool = False, **state: object):
        monkeypatch.setattr(engine, "containers", lambda _env: [make_container("api", **state)] if state else [])
        argv = None if script is None else ["sh", "-c", script]
        return compose_up.bring_up(env, argv, gate.Gate({"api": API}), timeout, patient)

    return run


def test_it_is_up_when_compose_is_done_and_all_are_healthy(env, bring_up) -> None:
    (row,) = bring_up("sleep 0.2; echo did it; echo and said so >&2", health="healthy")
    assert (row.service, row.state) == ("api", "healthy")
    assert env.log_file("up.log").read_text() == "did it\nand said so\n"


def test_what_is_done_already_is_only_looked_at(bring_up) -> None:
    assert [row.state for row in bring_up(None, health="healthy")] == ["healthy"]


def test_a_compose_that_fails_is_the_reason(bring_up) -> None:
    with pytest.raises(OpsError, match="Compose could not start everything:\n  Error: no such thing"):
        bring_up("echo Error: no such thing; exit 1", health="starting")


def test_a_service_that_fails_weighs_more_than_compose_and_ends_it(bring_up, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(OpsError, match="api stopped with exit code 3"):
        bring_up(f"sleep 15; touch {tmp_path}/late; exit 1", state="exited", health="", exit_code=3)
    assert time.monotonic() - began < 10
    assert not (tmp_path / "late").exists()


def test_patience_lets_compose_finish(bring_up, tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="api stopped with exit code 3"):
        bring_up(f"sleep 0.3; touch {tmp_path}/done", patient=True, state="exited", health="", exit_code=3)
    assert (tmp_path / "done").exists()
