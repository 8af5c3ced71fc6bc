"""When a rollout in a cluster is ready, and when it never will be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ops.base.errors import BUILD, CRASHED, NOT_READY, OUT_OF_MEMORY
from ops.engine.kubectl import Place
from ops.kubernetes import gate
from ops.rollout.gate import FAILED, READY, WAITING, Verdict
from ops.stack.model import Stack

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def judge(stack: Stack) -> gate.Gate:
    return gate.Gate({"web": stack.services["web"]}, at=Place("test", "acme-dev"), stack=stack, selector="")


def observe(judge: gate.Gate, objects: list[dict[str, Any]], *times: float) -> Verdict:
    for now in times or (0.0,):
        verdict = judge.observe(judge.take(objects), now)
    return verdict


def test_all_of_the_newest_and_none_of_the_old(judge, deployment: Make, replicaset: Make, pod: Make) -> None:
    assert observe(judge, [deployment(), replicaset(), pod(), pod()]).status == READY


@pytest.mark.parametrize(
    "status", [{"observedGeneration": 0}, {"updatedReplicas": 1}, {"replicas": 3}, {"availableReplicas": 1}]
)
def test_waits_while_the_controller_is_at_it(
    judge, deployment: Make, replicaset: Make, pod: Make, status: dict[str, int]
) -> None:
    assert observe(judge, [deployment(**status), replicaset(), pod()]).status == WAITING


BACK_OFF = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
LOOP = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
CRASH = {"terminated": {"exitCode": 3, "reason": "Error"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
NO_SECRET = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"state": BACK_OFF}, BUILD, "cannot get its image acme/web:1"),
        ({"state": LOOP, "last": CRASH, "restarts": 3}, CRASHED, "restarted 3 times with exit code 3"),
        ({"state": LOOP, "last": KILLED, "restarts": 3}, OUT_OF_MEMORY, "out of memory, its limit is too low"),
        ({"state": NO_SECRET}, CRASHED, 'secret "x" not found'),
    ],
)
def test_the_exit_code_tells_what_went_wrong(
    judge, deployment: Make, replicaset: Make, pod: Make, changes: dict[str, Any], code: int, words: str
) -> None:
    objects = [deployment(updatedReplicas=1), replicaset(), pod(**changes, ready=False)]
    verdict = observe(judge, objects, 0, 20)
    assert (verdict.status, verdict.culprit, verdict.code) == (FAILED, "web", code)
    assert words in verdict.reason


def test_a_registry_may_be_away_for_a_moment(judge, deployment: Make, replicaset: Make, pod: Make) -> None:
    objects = [deployment(updatedReplicas=1), replicaset(), pod(state=BACK_OFF, ready=False)]
    assert observe(judge, objects, 0, 10).status == WAITING


def test_what_becomes_of_old_pods_is_no_failure(judge, deployment: Make, replicaset: Make, pod: Make) -> None:
    old = pod(hash_="old", state=LOOP, last=CRASH, restarts=9, ready=False)
    assert observe(judge, [deployment(updatedReplicas=1), replicaset(), old], 0, 60).status == WAITING


def test_pods_that_are_not_admitted_are_told(judge, deployment: Make, replicaset: Make) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": 'pods "web-" is forbidden: exceeded quota'}
    verdict = observe(judge, [deployment(updatedReplicas=0, conditions=[refused]), replicaset()], 0, 20)
    assert (verdict.status, verdict.code) == (FAILED, NOT_READY)
    assert "exceeded quota" in verdict.reason


def test_when_time_is_up_it_says_what_the_pod_waits_for(judge, deployment: Make, replicaset: Make, pod: Make) -> None:
    made = pod()
    made["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}],
    }
    containers = judge.take([deployment(availableReplicas=0), replicaset(), made])
    verdict = judge.late(containers, judge.observe(containers, 0), 180)
    assert verdict.code == NOT_READY and "Unschedulable: no memory" in verdict.reason


def test_a_daemonset_is_ready_on_every_node(judge, deployment: Make) -> None:
    made = deployment()
    made["kind"] = "DaemonSet"
    status = {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3}
    made["status"] = {**status, "numberAvailable": 2}
    assert observe(judge, [made]).status == WAITING
    made["status"] = {**status, "numberAvailable": 3}
    assert observe(judge, [made]).status == READY


def test_a_statefulset_is_ready_when_the_new_revision_is(judge, deployment: Make) -> None:
    made = deployment(wanted=1)
    made["kind"] = "StatefulSet"
    made["status"] = {"observedGeneration": 1, "updateRevision": "web-2", "updatedReplicas": 0, "availableReplicas": 1}
    assert observe(judge, [made]).status == WAITING
    made["status"]["updatedReplicas"] = 1
    assert observe(judge, [made]).status == READY


def test_one_that_crashed_before_its_time_was_up_has_crashed(
    judge, deployment: Make, replicaset: Make, pod: Make
) -> None:
    crashed = pod(ready=False, last=CRASH, restarts=1)
    containers = judge.take([deployment(availableReplicas=0), replicaset(), crashed])
    verdict = judge.late(containers, judge.observe(containers, 0), 90)
    assert verdict.code == CRASHED and "it ended with exit code 3" in verdict.reason


PENDING = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}],
}


@pytest.mark.parametrize(
    ("status", "soon", "later"),
    [
        (None, "", "it has no pod"),
        (PENDING, "", "Unschedulable"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, "", "ContainerCreating"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}, "ErrImagePull", "ErrImagePull"),
        ({"containerStatuses": [{"state": {"running": {}}}]}, "", ""),
        ({"phase": "Failed"}, "", ""),
    ],
)
def test_what_runs_to_its_end_and_never_starts(status: dict[str, Any] | None, soon: str, later: str) -> None:
    """soon: what is said after the patience with a registry; later: when the time to start is over."""
    found = {"metadata": {"name": "migrate-1"}, "status": status} if status is not None else None
    start = gate.Start(180)
    assert start.failed(found, 0) == ""
    assert start.failed(found, 10) == ""
    assert start.failed(found, 16) == soon
    assert start.failed(found, 181) == later


def test_a_pod_in_the_place_of_a_lost_one_has_its_own_time() -> None:
    start = gate.Start(180)
    running = {"metadata": {"name": "first"}, "status": {"containerStatuses": [{"state": {"running": {}}}]}}
    assert start.failed(running, 0) == start.failed(running, 600) == ""
    second = {"metadata": {"name": "second"}, "status": PENDING}
    assert start.failed(second, 601) == start.failed(second, 700) == ""
    assert start.failed(second, 790) == "Unschedulable"
