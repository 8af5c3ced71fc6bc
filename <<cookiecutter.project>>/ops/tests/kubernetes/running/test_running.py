"""Pods as containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ops.engine import kubectl
from ops.engine.kubectl import Place
from ops.kubernetes import running
from ops.stack.model import Stack

AT = Place("test", "acme-dev")
Make = Callable[..., dict[str, Any]]


def test_a_ready_pod_is_a_healthy_container_with_the_labels_of_compose(pod: Make, stack: Stack) -> None:
    (found,) = running.read(AT, stack, [pod()])
    assert (found.service, found.number, found.state, found.health, found.ready) == (
        *("web", 1, "running", "healthy", True),
    )
    assert found.labels["ops.port"] == "8000"
    assert found.addresses == {"acme-dev_a": "10.244.1.7"}
    at = kubectl.pod(found.id)
    assert at and (at.name, at.container) == (found.name, "web")


@pytest.mark.parametrize(
    ("changes", "state", "health"),
    [
        ({"ready": False}, "running", "starting"),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, "created", ""),
        ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}, "created", ""),
        ({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restarts": 4}, "restarting", ""),
        ({"state": {"terminated": {"exitCode": 0}}}, "exited", ""),
    ],
)
def test_the_states_of_docker(pod: Make, stack: Stack, changes: dict[str, Any], state: str, health: str) -> None:
    (found,) = running.read(AT, stack, [pod(**changes)])
    assert (found.state, found.health) == (state, health)


def test_one_that_was_ready_and_is_not_is_unhealthy(pod: Make, stack: Stack) -> None:
    made = pod(ready=False)
    made["status"]["containerStatuses"][0]["started"] = True
    assert running.read(AT, stack, [made])[0].health == "unhealthy"


def test_a_pod_on_a_silent_node_does_not_run(pod: Make, stack: Stack) -> None:
    """Although that is the last that its node has said."""
    made = pod(ready=False, deletionTimestamp="2026-11-27T00:10:00Z")
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    made["status"]["conditions"].append(lost)
    (found,) = running.read(AT, stack, [made])
    assert (found.state, found.running, found.error) == ("dead", False, "its node does not answer")


def test_a_pod_that_was_evicted_does_not_run_and_says_why(pod: Make, stack: Stack) -> None:
    """The node has ended its containers, and nothing is told of them."""
    made = pod()
    made["status"] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    (found,) = running.read(AT, stack, [made])
    assert (found.state, found.error) == ("dead", "The node was low on resource: memory.")
    del made["status"]["message"]
    assert running.read(AT, stack, [made])[0].error == "Evicted"


def test_one_that_has_not_started_has_not_restarted(pod: Make, stack: Stack) -> None:
    made = pod(ready=False, state={"waiting": {"reason": "ImagePullBackOff"}})
    del made["status"]["containerStatuses"][0]["restartCount"]
    (found,) = running.read(AT, stack, [made])
    assert (found.state, found.restarts) == ("created", 0)


def test_how_it_ended_before_is_kept(pod: Make, stack: Stack) -> None:
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-27T00:01:00Z"}}
    (found,) = running.read(AT, stack, [pod(last=killed, restarts=1)])
    assert (found.exit_code, found.oom_killed, found.restarts) == (137, True, 1)


def test_pods_of_a_service_are_numbered_by_age(pod: Make, stack: Stack) -> None:
    young = pod(name="b", creationTimestamp="2026-11-27T00:09:00Z")
    old = pod(name="c", creationTimestamp="2026-11-27T00:01:00Z")
    assert [(each.name, each.number) for each in running.read(AT, stack, [young, old])] == [("c", 1), ("b", 2)]


def test_what_runs_beside_the_replicas_is_none_of_them(pod: Make, stack: Stack) -> None:
    beside = pod(name="web-run-1", labels={"stack/one-off": "web"})
    assert running.read(AT, stack, [beside]) == []


def test_a_scheduled_job_is_as_its_last_run_left_it(stack: Stack) -> None:
    cronjob = {
        "kind": "CronJob",
        "metadata": {
            "name": "report",
            "uid": "c1",
            "creationTimestamp": "2026-11-26T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "report"},
        },
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "acme/report:1"}]}}}}},
    }

    def job(number: int, condition: str) -> dict[str, Any]:
        return {
            "kind": "Job",
            "metadata": {"name": f"report-{number}", "ownerReferences": [{"uid": "c1"}]},
            "status": {
                "startTime": f"2026-11-27T0{number}:00:00Z",
                "conditions": [
                    {"type": condition, "status": "True", "lastTransitionTime": f"2026-11-27T0{number}:00:30Z"}
                ],
            },
        }

    (found,) = running.read(AT, stack, [cronjob, job(2, "Failed"), job(1, "Complete")])
    assert (found.service, found.state, found.exit_code, found.finished - found.started) == ("report", "exited", 1, 30)


def test_a_job_that_waits_for_a_person_is_not_late(stack: Stack) -> None:
    cronjob = {"kind": "CronJob", "metadata": {"name": "report"}, "spec": {"suspend": True}}
    assert running.read(AT, stack, [cronjob]) == []


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_why_a_pod_waits(pod: Make, reason: str) -> None:
    assert running.waiting(pod(state={"waiting": {"reason": reason}})) == reason
    assert running.waiting(pod()) == ""


def test_a_pod_without_a_node_says_why(pod: Make, stack: Stack) -> None:
    made = pod()
    made["status"] = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
        ],
    }
    assert running.waiting(made) == "Unschedulable"
    assert running.read(AT, stack, [made])[0].error == "Unschedulable: 0/3 nodes are available"
