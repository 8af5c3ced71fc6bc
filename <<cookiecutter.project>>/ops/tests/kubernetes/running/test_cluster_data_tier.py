"""For whom of the data tier a deploy to a cluster waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ops.kubernetes import availability, deploy, plan
from ops.kubernetes.plan import Seen
from ops.rollout.plan import Phase
from ops.stack.model import Stack

ETCD = ("etcd", "etcd-2", "etcd-3")
POSTGRES = ("postgres-primary", "postgres-replica")
SINGLE = "search"


def workload(name: str) -> dict[str, Any]:
    family = "etcd" if name in ETCD else "postgres" if name in POSTGRES else ""
    labels = {"app.kubernetes.io/name": name}
    template = {"metadata": {"labels": {availability.MEMBER: family} if family else {}}, "spec": {"containers": []}}
    return {"kind": "StatefulSet", "metadata": {"name": name, "labels": labels}, "spec": {"template": template}}


def waited(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, away: tuple[str, ...], *operations: plan.Apply
) -> list[list[str]]:
    """The services that are waited for, each time. away: those that are not ready."""
    found: list[list[str]] = []
    names = (*ETCD, *POSTGRES, SINGLE)
    containers: Any = tuple(SimpleNamespace(service=name, ready=name not in away) for name in names)
    seen = Seen(None, stack, tuple(map(workload, names)), (), {}, {}, containers)  # type: ignore[arg-type]
    monkeypatch.setattr(plan, "phase_of", lambda stack, each: Phase.DATA_TIER)
    work: Any = SimpleNamespace(
        await_ready=lambda stack, names: found.append([*names]) if names else None,
        _apply=lambda objects: None,
        took={},
    )
    deploy.Deployment._data_tier(work, operations, seen)
    return found


def operation(kind: type[plan.Apply], subject: str) -> plan.Apply:
    return kind(Phase.DATA_TIER, subject, ("its image changed",))


@pytest.mark.parametrize(
    ("away", "names"),
    [
        ((), []),
        # Away with its node, for hours perhaps.
        (("etcd-2", "postgres-primary"), []),
        # As after a deploy that was killed while they started.
        (ETCD[1:], [*ETCD]),
        (POSTGRES, [*POSTGRES]),
        ((SINGLE,), [SINGLE]),
    ],
)
def test_a_member_that_is_away_keeps_no_release_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, away: tuple[str, ...], names: list[str]
) -> None:
    assert waited(stack, monkeypatch, away) == ([names] if names else [])


def test_new_members_are_waited_for(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    new = [operation(plan.Create, name) for name in ETCD[1:]]
    assert waited(stack, monkeypatch, ("etcd-2",), *new) == [["etcd-2", "etcd-3"]]


def test_nobody_restarts_while_another_is_away(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the data tier are waited for, before the first and after each."""
    restarts = [operation(plan.Restart, name) for name in ETCD[:2]]
    assert waited(stack, monkeypatch, (), *restarts) == [[*ETCD, *POSTGRES, SINGLE]] * 3
