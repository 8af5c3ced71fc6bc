"""Whether a rollout in a cluster gets ready, and when it never will: the judgement of a deploy on one host (its words,
its table, its exit codes), of what Kubernetes says of workloads and pods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ops.base.errors import BUILD, CRASHED, NOT_READY, OUT_OF_MEMORY, OpsError
from ops.engine import Container, kubectl
from ops.engine.kubectl import Object, Place
from ops.kubernetes import marks, running
from ops.rollout import gate
from ops.rollout.gate import Row, Verdict
from ops.stack.model import Stack

# What is asked for in one look.
KINDS = ("deployments.apps", "statefulsets.apps", "daemonsets.apps", "replicasets.apps", "pods")
# Why a container waits that will wait for ever, with the exit code of the command.
PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
BROKEN = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
# A registry may have been away for a moment, and a secret may come a moment later than its pod: so many looks.
PATIENCE_SECONDS = 15.0


@dataclass(frozen=True)
class Workload:
    """What runs the pods of a service, as it is now. ready: pods of the newest template that are; revision: the label
    of these; settled: whether the controller has seen the newest template, and nothing of an older one runs."""

    service: str
    wanted: int
    ready: int
    settled: bool
    revision: str = ""
    refused: str = ""


def workload(object: Object, replicasets: Sequence[Object]) -> Workload:
    """A Workload from a Deployment, StatefulSet or DaemonSet. replicasets: of all."""
    spec, status = object["spec"], object.get("status") or {}
    current = int(status.get("observedGeneration", 0)) >= int(object["metadata"].get("generation", 0))
    refused = next(
        (
            str(each.get("message", ""))
            for each in status.get("conditions") or ()
            if each["type"] == "ReplicaFailure" and each["status"] == "True"
        ),
        "",
    )
    if object["kind"] == "DaemonSet":
        wanted, updated = int(status.get("desiredNumberScheduled", 0)), int(status.get("updatedNumberScheduled", 0))
        ready = min(int(status.get("numberAvailable", 0)), updated)
        return Workload(marks.service(object), wanted, ready, current and updated == wanted > 0, refused=refused)
    wanted, updated = int(spec.get("replicas", 1)), int(status.get("updatedReplicas", 0))
    if object["kind"] == "StatefulSet":
        ready = min(int(status.get("availableReplicas", status.get("readyReplicas", 0))), updated)
        revision = str(status.get("updateRevision", ""))
        return Workload(marks.service(object), wanted, ready, current and updated == wanted, revision, refused)
    ready = min(int(status.get("availableReplicas", 0)), updated)
    settled = current and updated == wanted == int(status.get("replicas", 0))
    return Workload(marks.service(object), wanted, ready, settled, _newest(object, replicasets), refused)


def _newest(deployment: Object, replicasets: Sequence[Object]) -> str:
    """The hash of a deployment's newest template; "" while its controller has not made one."""
    annotation = "deployment.kubernetes.io/revision"
    revision = (deployment["metadata"].get("annotations") or {}).get(annotation)
    for each in replicasets:
        owners = {owner["uid"] for owner in each["metadata"].get("ownerReferences") or ()}
        counted = (each["metadata"].get("annotations") or {}).get(annotation)
        if deployment["metadata"]["uid"] in owners and revision and counted == revision:
            return marks.labels(each).get("pod-template-hash", "")
    return ""


@dataclass
class Gate(gate.Gate):
    """Judges a rollout from successive looks. services: those that must become ready."""

    at: Place = field(kw_only=True)
    stack: Stack = field(kw_only=True)
    selector: str = field(kw_only=True)
    _workloads: dict[str, Workload] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)
    _stuck: dict[str, float] = field(default_factory=dict)

    def look(self) -> list[Container]:
        """The pods of the newest templates."""
        return self.take(kubectl.items(self.at, KINDS, self.selector))

    def take(self, objects: Sequence[Object]) -> list[Container]:
        """The pods of the newest templates among some objects; what these say of workloads is kept for the verdict."""
        replicasets = [each for each in objects if each["kind"] == "ReplicaSet"]
        self._workloads = {
            marks.service(each): workload(each, replicasets)
            for each in objects
            if each["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}
        }
        found: list[Container] = []
        self._reasons = {}
        for each in objects:
            if (
                each["kind"] != "Pod"
                or marks.ONE_OFF in marks.labels(each)
                or each["metadata"].get("deletionTimestamp")
            ):
                continue
            made = running.container(self.at, self.stack, each)
            revision = self._workloads[made.service].revision if made.service in self._workloads else ""
            if made.service in self.services and revision in {"", made.config_hash}:
                found.append(made)
                self._reasons[made.id] = running.waiting(each)
        return found

    def observe(self, containers: Sequence[Container], now: float, working: bool = False) -> Verdict:
        """The verdict at the time `now` (seconds, monotonic)."""
        if self._began < 0:
            self._began = now
        rows, failures = [], dict[str, tuple[str, Container | None, int]]()
        for name in self.services:
            known = self._workloads.get(name, Workload(name, 1, 0, False))
            mine = [each for each in containers if each.service == name]
            for each in mine:
                if trouble := self._trouble(each, now):
                    failures.setdefault(name, (trouble[0], each, trouble[1]))
            if known.refused and self._for_long(f"refused {name}", True, now):
                failures.setdefault(name, (f"gets no pods: {known.refused}", None, NOT_READY))
            complete = known.settled and known.ready >= known.wanted
            if complete:
                self._ready_after.setdefault(name, now - self._began)
            word = "healthy" if complete else "replacing" if known.ready >= known.wanted else gate.unready(mine)
            rows.append(Row(name, known.ready, known.wanted, word, self._ready_after.get(name, 0)))
        if failures:
            culprit = self._root({*failures})
            return Verdict(gate.FAILED, tuple(rows), culprit, *failures[culprit])
        return Verdict(gate.READY if all(row.done for row in rows) else gate.WAITING, tuple(rows))

    def late(self, containers: Sequence[Container], verdict: Verdict, seconds: float) -> Verdict:
        """The verdict when time is up."""
        found = super().late(containers, verdict, seconds)
        worst = found.container
        if worst and worst.restarts and worst.exit_code and not worst.oom_killed:
            # Between two restarts Kubernetes waits ever longer: the time was up before it had tried often enough.
            return replace(found, reason=f"{found.reason}: it ended with exit code {worst.exit_code}", code=CRASHED)
        if found.container and found.container.error:
            return replace(found, reason=f"{found.reason}: {found.container.error}")
        return found

    def _trouble(self, each: Container, now: float) -> tuple[str, int] | None:
        """Why this pod will not become ready, and the exit code for that; None while it may."""
        reason = self._reasons.get(each.id, "")
        if self._for_long(f"pull {each.id}", reason in PULL, now):
            return f"cannot get its image {each.image} ({each.error})", BUILD
        ended = OUT_OF_MEMORY if each.oom_killed else CRASHED
        if each.restarts > self.restarts_allowed:
            often = "once" if each.restarts == 1 else f"{each.restarts} times"
            return f"restarted {often}{_ending(each)}", ended
        if each.state == "exited" and self._for_long(f"exited {each.id}", True, now):
            return f"stopped{_ending(each)}", ended
        if self._for_long(f"broken {each.id}", reason in BROKEN - {"CrashLoopBackOff"}, now):
            return f"cannot be started ({each.error})", CRASHED
        return None

    def _for_long(self, what: str, holds: bool, now: float) -> bool:
        """Whether something holds, and has for long enough to count."""
        if not holds:
            self._stuck.pop(what, None)
            return False
        return now - self._stuck.setdefault(what, now) >= PATIENCE_SECONDS


@dataclass
class Start:
    """Judges from successive looks whether a pod that runs to its end ever starts. seconds: how long it may take."""

    seconds: float
    _pod: str = ""
    _began: float = -1.0
    _stuck: float = -1.0

    def failed(self, pod: Object | None, now: float) -> str:
        """Why it will not, in Kubernetes' word; "" while it still may, and once it has. pod: None while there is none.

        Another pod, such as one that takes the place of one on a dead node, has the same time again.
        """
        name = pod["metadata"]["name"] if pod else ""
        if self._began < 0 or name != self._pod:
            self._pod, self._began, self._stuck = name, now, -1.0
        if pod and started(pod):
            return ""
        why = running.waiting(pod) if pod else ""
        if why not in PULL | BROKEN:
            self._stuck = -1.0
        elif self._stuck < 0:
            self._stuck = now
        elif now - self._stuck > PATIENCE_SECONDS:
            return why
        if now - self._began <= self.seconds:
            return ""
        return why or ("it waits" if pod else "it has no pod")


def started(pod: Object) -> bool:
    """Whether a pod runs, or has ended."""
    status = pod.get("status") or {}
    return status.get("phase") in {"Succeeded", "Failed"} or any(
        not (each.get("state") or {}).get("waiting") for each in status.get("containerStatuses") or ()
    )


def not_started(at: Place, what: str, name: str, why: str, remedy: str, code: int) -> OpsError:
    """The error for something that does not start: what Kubernetes reports of it, and what to do.

    name: of the object that events are about. code: the exit code, unless the image cannot be had.
    """
    said = "\n".join(f"  {line}" for line in events(at, name)) or "  nothing"
    return OpsError(
        f"{what} does not start ({why}). Kubernetes reports of {name}:\n{said}",
        remedy,
        BUILD if why in PULL else code,
    )


def _ending(each: Container) -> str:
    return ": out of memory, its limit is too low" if each.oom_killed else f" with exit code {each.exit_code}"


def explain(at: Place, verdict: Verdict) -> OpsError:
    """The error for a failed verdict: who, why, what Kubernetes reports of it and what its log said."""
    if verdict.container is None:
        return gate.explain(verdict)
    pod = verdict.container.name
    found = gate.explain(verdict)
    if said := events(at, pod):
        head, separator, rest = found.message.partition("\n")
        lines = "\n".join(f"  {line}" for line in said)
        found.message = f"{head}\nKubernetes reports of {pod}:\n{lines}{separator}{rest}"
    return found


def events(at: Place, name: str, most: int = 5) -> list[str]:
    """The last warnings about an object of a name, such as a pod, in words."""
    done = kubectl.run(
        at,
        *("get", "events", "--output=json"),
        f"--field-selector=involvedObject.name={name},type=Warning",
        check=False,
    )
    found: list[Mapping[str, Any]] = done.json().get("items", []) if done.ok else []
    found = sorted(found, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    lines = [f"{each.get('reason', '')}: {re.sub(chr(92) + 's+', ' ', each.get('message', ''))}" for each in found]
    return [gate.shorten(line) for line in dict.fromkeys(lines)][-most:]
