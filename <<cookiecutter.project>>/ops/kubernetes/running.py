"""Pods as the containers that the rest of ops/ knows: so what asks PostgreSQL, Redis and the services on one host asks
them in a cluster by the same code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ops.base.environments import Environment
from ops.engine import Container, kubectl, timestamp
from ops.engine.kubectl import Object, Place, Pod
from ops.kubernetes import export, marks
from ops.stack import model
from ops.stack.model import Stack

# Why a container waits before it has ever run, where that is no trouble.
_STARTING = frozenset({"ContainerCreating", "PodInitializing", ""})
OUT_OF_MEMORY = "OOMKilled"
# Why a pod is removed whose node is silent. It stays in the list until the node is back, or is deleted.
_LOST = "DeletionByTaintManager"


_KINDS = ("pods", "jobs.batch", "cronjobs.batch", "daemonsets.apps")


def containers(env: Environment, declared: Stack) -> list[Container]:
    """The containers of an environment, of each service the oldest first; scheduled jobs as their last run left them.
    What runs by `invoke run` is not among them."""
    return read(kubectl.place(env), declared, kubectl.items(kubectl.place(env), _KINDS, marks.selector(env)))


def one_offs(env: Environment, declared: Stack) -> list[Container]:
    """The containers of `invoke run`: they are beside the replicas, and none of them."""
    found = kubectl.items(kubectl.place(env), ("pods",), f"{marks.PART_OF}={env.namespace},{marks.ONE_OFF}")
    return [container(kubectl.place(env), declared, each) for each in found]


@dataclass(frozen=True)
class Glance:
    """The services of an environment that a cluster runs, each with as many containers as are wanted there, and the
    containers that exist."""

    stack: Stack
    containers: list[Container]


def glance(env: Environment) -> Glance:
    """Read the declaration and the containers."""
    at, declared = kubectl.place(env), model.load(env)
    objects = kubectl.items(at, _KINDS, marks.selector(env))
    exported = export.exported(declared)
    # One on each node, however many nodes there are.
    everywhere = {
        marks.service(each): int((each.get("status") or {}).get("desiredNumberScheduled", 0))
        for each in objects
        if each["kind"] == "DaemonSet"
    }
    services = {
        name: replace(each, replicas=everywhere.get(name, each.replicas))
        for name, each in declared.services.items()
        if name in exported
    }
    return Glance(replace(declared, services=services), read(at, declared, objects))


def read(at: Place, declared: Stack, objects: Iterable[Object]) -> list[Container]:
    """Containers from pods, Jobs and CronJobs; labels are those of Compose."""
    by_kind: dict[str, list[Object]] = {}
    for each in objects:
        by_kind.setdefault(each["kind"], []).append(each)
    # One that is suspended waits for a person: it has no time, so nothing of it can be late.
    scheduled = {
        each["metadata"]["name"]: each for each in by_kind.get("CronJob", ()) if not each["spec"].get("suspend")
    }
    services: dict[str, list[Container]] = {}
    for each in sorted(by_kind.get("Pod", ()), key=lambda pod: pod["metadata"]["creationTimestamp"]):
        made = container(at, declared, each)
        if made.service and made.service not in scheduled and marks.ONE_OFF not in marks.labels(each):
            services.setdefault(made.service, []).append(made)
    for name, cronjob in scheduled.items():
        services[name] = [_scheduled(declared, cronjob, by_kind.get("Job", ()))]
    return [
        replace(each, number=number) for name in sorted(services) for number, each in enumerate(services[name], start=1)
    ]


def container(at: Place, declared: Stack, pod: Object) -> Container:
    """A container from a pod; the first one of it, for no pod of ours has another."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    said_of = marks.labels(pod)
    name = said_of.get(marks.SERVICE) or said_of.get(marks.ONE_OFF, "")
    service = declared.services.get(name)
    main = spec["containers"][0]
    said: Mapping[str, Any] = next(
        (each for each in status.get("containerStatuses") or () if each["name"] == main["name"]), {}
    )
    state, last = said.get("state") or {}, said.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    word, error = _state(status, state, int(said.get("restartCount", 0)))
    started = (state.get("running") or state.get("terminated") or {}).get("startedAt") or ""
    return Container(
        id=Pod(at, metadata["name"], main["name"]).id,
        name=metadata["name"],
        service=name,
        number=0,
        state=word,
        health=_health(main, status, said) if word == "running" else "",
        image_id=said.get("imageID", ""),
        image=main["image"],
        config_hash=said_of.get("pod-template-hash") or said_of.get("controller-revision-hash", ""),
        created=timestamp(metadata["creationTimestamp"]),
        started=timestamp(started),
        finished=timestamp(ended.get("finishedAt") or ""),
        exit_code=int(ended.get("exitCode", 0)),
        restarts=int(said.get("restartCount", 0)),
        oom_killed=ended.get("reason") == OUT_OF_MEMORY,
        error=error,
        labels={**(metadata.get("annotations") or {}), **said_of, **(service.labels if service else {})},
        addresses={network: status["podIP"] for network in _networks(declared, name)} if status.get("podIP") else {},
    )


def waiting(pod: Object) -> str:
    """Why a pod waits, as Kubernetes calls it: ImagePullBackOff, Unschedulable, …; "" when it does not."""
    status = pod.get("status") or {}
    for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if why := ((each.get("state") or {}).get("waiting") or {}).get("reason", ""):
            return str(why)
    return next(
        (
            str(each.get("reason", ""))
            for each in status.get("conditions") or ()
            if each["type"] == "PodScheduled" and each["status"] == "False"
        ),
        "",
    )


def _state(status: Mapping[str, Any], state: Mapping[str, Any], restarts: int) -> tuple[str, str]:
    """The state of a container in the words of Docker, and what is wrong with it."""
    if any(each.get("reason") == _LOST and each["status"] == "True" for each in status.get("conditions") or ()):
        # The last that its node said is that it runs; whoever asks it would wait for an answer that does not come.
        return "dead", "its node does not answer"
    if "running" in state:
        return "running", ""
    if ended := state.get("terminated"):
        return "exited", str(ended.get("message", ""))
    if why := state.get("waiting"):
        reason, said = str(why.get("reason", "")), str(why.get("message", ""))
        if reason in _STARTING:
            return "created", ""
        detail = f"{reason}: {said}" if said else reason
        return ("restarting" if restarts or reason == "CrashLoopBackOff" else "created"), detail
    if status.get("phase") in {"Failed", "Unknown"}:
        return "dead", str(status.get("message") or status.get("reason") or "")
    for each in status.get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return "created", f"{each.get('reason', '')}: {each.get('message', '')}"
    return "created", ""


def _health(main: Mapping[str, Any], status: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    if "readinessProbe" not in main and "startupProbe" not in main:
        return ""
    if said.get("ready") and _condition(status, "Ready"):
        return "healthy"
    # Ready once and not now, or not within its start.
    return "unhealthy" if said.get("started") else "starting"


def _condition(status: Mapping[str, Any], name: str) -> bool:
    return any(each["type"] == name and each["status"] == "True" for each in status.get("conditions") or ())


def _networks(declared: Stack, service: str) -> Sequence[str]:
    """The names of a service's networks, as the engine of one host would have them."""
    known = declared.services.get(service)
    networks: Mapping[str, Any] = declared.document.get("networks") or {}
    return [(networks.get(each) or {}).get("name", each) for each in known.networks] if known else []


def _scheduled(declared: Stack, cronjob: Object, jobs: Iterable[Object]) -> Container:
    """A scheduled job as its last run left it."""
    name = cronjob["metadata"]["name"]
    service = declared.services.get(name)
    mine = [
        each for each in jobs if _owner(each) == cronjob["metadata"]["uid"] and each.get("status", {}).get("startTime")
    ]
    last = max(mine, key=lambda job: job["status"]["startTime"], default=None)
    status: Mapping[str, Any] = last["status"] if last else {}
    failed = [each for each in status.get("conditions") or () if each["type"] == "Failed" and each["status"] == "True"]
    ended = status.get("completionTime") or (failed[0]["lastTransitionTime"] if failed else "")
    spec = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return Container(
        id=f"cronjob/{name}",
        name=name,
        service=name,
        number=1,
        state="running" if last and not ended else "exited" if last else "created",
        health="",
        image_id="",
        image=spec["image"],
        config_hash="",
        created=timestamp(cronjob["metadata"]["creationTimestamp"]),
        started=timestamp(status.get("startTime", "")),
        finished=timestamp(ended),
        exit_code=1 if failed else 0,
        labels={**marks.labels(cronjob), **(service.labels if service else {})},
    )


def _owner(object: Object) -> str:
    return next((str(each["uid"]) for each in object["metadata"].get("ownerReferences") or ()), "")
