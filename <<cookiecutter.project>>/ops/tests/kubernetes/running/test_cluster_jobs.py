"""A migration in a cluster: how long a deploy waits for one, and what it says of one that does not start."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from ops.base.errors import BUILD, MIGRATION, OpsError
from ops.kubernetes import deploy, gate
from ops.stack.model import Stack

JOB = {"metadata": {"name": "migrate-1"}, "status": {}}


@pytest.fixture
def attempt(env, stack: Stack, monkeypatch: pytest.MonkeyPatch):
    """Waits for a Job whose newest pod is always the one that is given, on a clock of its own; the error."""

    def wait(*pods: dict[str, Any]) -> OpsError:
        clock = itertools.count(0, 5.0)
        monkeypatch.setattr(deploy.kubectl, "find", lambda *words: JOB)
        monkeypatch.setattr(deploy.kubectl, "items", lambda *words: [*pods])
        monkeypatch.setattr(gate, "events", lambda at, name: [f"FailedScheduling: {name} fits nowhere"])
        monkeypatch.setattr(deploy, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
        held = SimpleNamespace(check=lambda: None)
        with pytest.raises(OpsError) as caught:
            deploy.finish(env, stack, "migrate", "migrate-1", held, lambda text: None)  # type: ignore[arg-type]
        return caught.value

    return wait


def test_a_pod_that_no_node_takes_ends_the_deploy(attempt, pod) -> None:
    made = pod("migrate", name="migrate-1-x")
    made["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "No"}]}
    error = attempt(made)
    assert error.code == MIGRATION
    assert error.message == (
        "migrate does not start (No). Kubernetes reports of migrate-1-x:\n  FailedScheduling: migrate-1-x fits nowhere"
    )
    assert "DEPLOY_TIMEOUT" in error.remedy


def test_a_job_that_gets_no_pod_ends_the_deploy(attempt) -> None:
    error = attempt()
    assert error.code == MIGRATION
    assert "migrate does not start (it has no pod). Kubernetes reports of migrate-1:" in error.message


def test_an_image_that_cannot_be_pulled_ends_the_deploy(attempt, pod) -> None:
    error = attempt(pod("migrate", state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}))
    assert error.code == BUILD
    assert "invoke images push --env dev" in error.remedy
