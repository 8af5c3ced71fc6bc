"""Ctrl-C in the middle of a deploy: what it has started ends, and the message says how far it came."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import INTERRUPTED, OpsError
from ops.rollout import interrupt


@dataclass
class Work:
    env: Environment
    touched: bool
    not_undone: list[str] = field(default_factory=list)
    command: str = "deploy"
    doing: str = "draining"

    def standing(self) -> str:
        return "2 are healthy"


@pytest.mark.parametrize(
    ("touched", "not_undone", "said"),
    [
        (False, [], "Interrupted while draining: nothing was changed."),
        (True, [], "Interrupted while draining: 2 are healthy."),
        (True, ["a: no"], "Interrupted while draining: 2 are healthy. The way back failed: a: no."),
    ],
)
def test_it_says_how_far_it_came_and_ends_what_it_started(
    env: Environment, monkeypatch: pytest.MonkeyPatch, touched: bool, not_undone: list[str], said: str
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(engine, "end_all", lambda: ended.append(True))
    with pytest.raises(OpsError) as caught, interrupt.explained(Work(env, touched, not_undone)):
        raise KeyboardInterrupt
    assert (caught.value.message, caught.value.code, ended) == (said, INTERRUPTED, [True])
    assert caught.value.remedy == f"`invoke deploy --env {env.name}` continues from here."
