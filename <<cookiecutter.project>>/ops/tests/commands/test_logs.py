"""The command line of logs, and what is refused."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base.errors import USAGE, OpsError
from ops.commands import logs
from ops.stack import model
from ops.stack.model import Service


def test_logs_command_line(env) -> None:
    assert logs.logs_argv(env, "api", follow=True, tail="50", since="10m") == engine.compose_argv(
        env, "logs", "--tail", "50", "--follow", "--since", "10m", "--no-color", "api", all_profiles=True
    )
    assert logs.logs_argv(env, "", follow=False, tail="all", since="")[-4:] == [
        "logs",
        "--tail",
        "all",
        "--no-color",
    ]


def test_logs_of_nobody(env, make_stack, monkeypatch) -> None:
    monkeypatch.setattr(model, "load", lambda env, all_profiles: make_stack(Service("web", "x")))
    monkeypatch.setattr(engine, "containers", lambda env: [])
    with pytest.raises(OpsError, match='There is no service "wbe"') as caught:
        logs.logs(env, "wbe")
    assert (caught.value.code, caught.value.remedy) == (USAGE, "There are: web.")
    with pytest.raises(OpsError, match="--tail must be a whole number"):
        logs.logs(env, tail="-5")
