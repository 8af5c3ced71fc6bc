"""Compose under the eyes of the gate: its command line, and what it says when it gives up."""

from __future__ import annotations

from pathlib import Path

from ops import engine
from ops.rollout import compose_up


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
