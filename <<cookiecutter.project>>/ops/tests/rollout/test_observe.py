"""What is observed before a decision, when not everybody answers."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.parts.nginx import edge
from ops.rollout import observe


def test_an_nginx_that_cannot_be_asked_does_not_end_the_look(env, make_container, monkeypatch) -> None:
    """The deploy that would repair it must not be refused by it."""
    nginx = make_container("nginx")
    monkeypatch.setattr(engine, "containers", lambda _env: [nginx])

    def restarting(*_args: object, **_options: object) -> None:
        raise OpsError("Container is restarting, wait until the container is running")

    monkeypatch.setattr(edge, "peers", restarting)
    assert observe._containers(env) == ([nginx], ())
    monkeypatch.setattr(edge, "peers", lambda _nginx: {"web": ["10.0.0.2"], "api": []})
    assert observe._containers(env) == ([nginx], ("web",))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"health": "unhealthy"}, True),
        ({"health": "starting"}, True),
        ({"health": "starting", "restarts": 2}, False),
        ({"state": "restarting", "health": ""}, False),
        ({"state": "exited"}, False),
    ],
)
def test_an_nginx_that_keeps_restarting_serves_nobody(make_container, changes: dict, found: bool) -> None:
    nginx = make_container("nginx", **changes)
    assert edge.find([make_container("web"), nginx]) is (nginx if found else None)
