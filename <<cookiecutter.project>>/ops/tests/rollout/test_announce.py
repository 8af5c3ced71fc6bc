"""In which order the hooks and the webhook are told, and of what."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.rollout import announce, hooks, notify


@dataclass
class Work:
    env: Environment
    command: str = "deploy"
    release: int = 0

    def elapsed(self) -> float:
        return 12.4


@pytest.fixture
def told(monkeypatch) -> list[tuple]:
    """Hooks and messages in their order: name, release, result, reason. A hook named in `broken` fails."""
    found: list[tuple] = []

    def note(_env, name, variables) -> str:
        found.append((name, variables["RELEASE"], variables["RESULT"], variables["REASON"]))
        return "it failed" if name in broken else ""

    broken: set[str] = set()
    note.broken = broken  # type: ignore[attr-defined]
    monkeypatch.setattr(hooks, "run", note)
    monkeypatch.setattr(notify, "send", note)
    return found


def test_a_deploy_that_succeeds(env, told) -> None:
    work = Work(env)
    with announce.announced(work, ["api"], "deployed"):
        told.append("work")
        work.release = 7
    assert told == [
        ("pre-deploy", "", "", ""),
        ("started", "", "", ""),
        "work",
        ("succeeded", "7", "deployed", ""),
        ("post-deploy", "7", "deployed", ""),
    ]


def test_a_rollback(env, told) -> None:
    with announce.announced(Work(env, "rollback to 3", 8), ["api"], "deployed", back=True):
        pass
    assert [each[0] for each in told] == ["pre-rollback", "started", "rolled back", "post-rollback"]


def test_a_deploy_that_fails(env, told) -> None:
    error = OpsError("api is unhealthy.\nIts last lines:\n  …")
    with pytest.raises(OpsError) as caught, announce.announced(Work(env, release=7), ["api"], "deployed"):
        raise error
    assert caught.value is error
    assert told[2:] == [
        ("failed", "7", "failed", "api is unhealthy."),
        ("deploy-failed", "7", "failed", "api is unhealthy."),
    ]


def test_a_deploy_that_is_interrupted(env, told) -> None:
    with pytest.raises(KeyboardInterrupt), announce.announced(Work(env), ["api"], "deployed"):
        raise KeyboardInterrupt
    assert [each[2] for each in told[2:]] == ["interrupted", "interrupted"]


def test_a_hook_that_refuses_is_no_failed_deploy(env, told) -> None:
    hooks.run.broken.add("pre-deploy")
    with pytest.raises(OpsError) as caught, announce.announced(Work(env), ["api"], "deployed"):
        raise AssertionError("nothing is to happen")
    assert caught.value.code == REFUSED
    assert [each[0] for each in told] == ["pre-deploy"]


def test_a_second_interruption_ends_the_hook_only(env, told, monkeypatch) -> None:
    def interrupted(_env, name, _variables) -> str:
        if name == "deploy-failed":
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(hooks, "run", interrupted)
    with pytest.raises(OpsError, match="the cause"), announce.announced(Work(env), ["api"], "deployed"):
        raise OpsError("the cause")
