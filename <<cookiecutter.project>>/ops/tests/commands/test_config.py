"""The configuration, and the plain command that means the same."""

from __future__ import annotations

import json

from ops import engine
from ops.commands import config
from ops.engine import Completed
from ops.stack import model


def test_config_shows_the_plain_command(env, make_stack, monkeypatch, capsys) -> None:
    monkeypatch.setattr(engine, "compose", lambda env, *args, **options: Completed(args, 0, "name: acme-dev\n", ""))
    config.config(env)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "#   docker compose --env-file config/dev/.env up --detach",
        "name: acme-dev",
    ]
    monkeypatch.setattr(model, "load", lambda env: make_stack())
    config.config(env, as_json=True)
    assert json.loads(capsys.readouterr().out)["settings"]["WEB_PORT"] == "8080"
