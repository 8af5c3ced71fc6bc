"""The data of an environment in a cluster, for `backup` and `restore`: what ops/data/site.py does on one host.

What uses the data is scaled to 0 and back; how many pods there were is noted on the workload, so that whoever comes
after a command that was killed knows it too. Files are reached by pods that hold a claim and wait, in which scripts are
run.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import IO, Any

from ops.base import undo
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.base.waiting import until
from ops.data import part
from ops.data.site import FOLDER, Tick
from ops.engine import Completed, Container, kubectl
from ops.engine.kubectl import Object, Pod
from ops.kubernetes import availability, byhand, export, inside, marks, running
from ops.kubernetes.values import object_name
from ops.parts import services
from ops.parts.nginx import edge
from ops.stack import labels, model
from ops.stack.model import Stack
from ops.stack.owned import Volume

# On a workload that is stopped: how many pods it had. On a CronJob: that it was not suspended.
_BEFORE = "stack/replicas-before"
# On pods that commands of the data use, which the next one removes; its value: what it is for.
WORK = "stack/data-work"
_KINDS = ("deployments.apps", "statefulsets.apps", "cronjobs.batch")
_DEPLOYMENT, _STATEFULSET, _CRONJOB = "Deployment", "StatefulSet", "CronJob"
_GONE_SECONDS = 300.0
# A pod that waits ends by itself after a day, whatever becomes of the command.
_LONGEST_SECONDS = 86400


class Cluster:
    """A namespace of a cluster. Leaving its block removes the pods that it has started."""

    def __init__(self, env: Environment) -> None:
        self._env, self._at = env, kubectl.place(env)
        self._keepers: dict[str, Pod] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        undo.every([("removing the pods of the command", self._release)])

    # ── what runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def containers(self) -> list[Container]:
        """The pods as containers; a member of the data tier that is scaled to 0 as one that has exited."""
        declared = model.load(self._env)
        found = running.containers(self._env, declared)
        seen = {each.service for each in found}
        for each in self._workloads(_STATEFULSET):
            name = marks.service(each)
            if name in declared.services and name not in seen:
                found.append(self._resting(each, declared))
        return found

    def _resting(self, statefulset: Object, declared: Stack) -> Container:
        name = marks.service(statefulset)
        at = Pod(self._at, f"{statefulset['metadata']['name']}-0", name)
        return replace(_placeholder(at.id, name, "exited"), labels=declared.services[name].labels)

    def make(self, names: Sequence[str]) -> None:
        """Refuse: a part that is not in the cluster comes by a deploy."""
        raise OpsError(f"{', '.join(names)}: not in the cluster.", f"invoke deploy --env {self._env.name}", REFUSED)

    def clients(self, declared: Stack, containers: Sequence[Container]) -> list[Container]:
        """Workloads that use the data tier, and scheduled jobs, each as one container."""
        found = []
        for each in self._workloads(_DEPLOYMENT, _CRONJOB):
            name, kind = marks.service(each), each["kind"]
            # One that nothing declares any more may write as well. No job begins, as on one host without its scheduler.
            if kind == _CRONJOB or name not in declared.services or name in declared.clients:
                on = not each["spec"].get("suspend") if kind == _CRONJOB else int(each["spec"].get("replicas", 1)) > 0
                found.append(_placeholder(_id(each), name, "running" if on else "exited"))
        return found

    def ran(self, containers: Sequence[Container]) -> Collection[str]:
        """The services with pods, and those whose Jobs are there: a pod of one may be gone."""
        jobs = kubectl.items(self._at, ("jobs.batch",), marks.selector(self._env))
        return {each.service for each in containers} | {marks.service(each) for each in jobs}

    def stop(self, containers: Sequence[Container]) -> None:
        """Scale workloads to 0 and suspend scheduled jobs, and wait until their pods are gone."""
        stopped = []
        for each in self._of(containers):
            before = (each["metadata"].get("annotations") or {}).get(_BEFORE)
            if each["kind"] == _CRONJOB:
                if not each["spec"].get("suspend"):
                    self._patch(each, "1", {"suspend": True})
                continue
            count = int(each["spec"].get("replicas", 1))
            self._patch(each, before if before and not count else str(count), {"replicas": 0})
            stopped.append(marks.service(each))
        self._await_gone(stopped)

    def start(self, containers: Sequence[Container]) -> None:
        """Scale workloads to what they were, and let scheduled jobs run again."""
        # A claim that one node at a time may have is free then.
        self._release()
        for each in self._of(containers):
            before = (each["metadata"].get("annotations") or {}).get(_BEFORE)
            if each["kind"] == _CRONJOB:
                if before:
                    self._patch(each, None, {"suspend": False})
            elif not int(each["spec"].get("replicas", 1)):
                self._patch(each, None, {"replicas": int(before or 1)})

    def _patch(self, workload: Object, before: str | None, spec: Mapping[str, Any]) -> None:
        """Change a workload and its note in one request. before: the note; None removes it."""
        byhand.patch(self._at, workload, {"metadata": {"annotations": {_BEFORE: before}}, "spec": dict(spec)})

    def _await_gone(self, names: Collection[str]) -> None:
        def left() -> list[str]:
            pods = kubectl.items(self._at, ("pods",), marks.selector(self._env))
            return [
                each["metadata"]["name"]
                for each in pods
                if marks.service(each) in names and (each.get("status") or {}).get("phase") not in _ENDED
            ]

        if late := until(left, _GONE_SECONDS, 0.5, accept=lambda late: not late):
            raise OpsError(
                f"Still there after {_GONE_SECONDS:.0f} s: {', '.join(late)}.",
                "If their node is gone, delete the node or taint it: docs/kubernetes.md",
            )

    def wait_healthy(self, containers: Sequence[Container]) -> None:
        """Wait until the workloads have all their pods, and these are ready. Raises OpsError naming those that do not
        get there in time."""
        wanted = [each for each in self._of(containers) if each["kind"] != _CRONJOB]
        ends = time.monotonic() + services.HEALTHY_SECONDS
        late = []
        for each in wanted:
            left = max(1, int(ends - time.monotonic()))
            name = f"{each['kind'].lower()}/{each['metadata']['name']}"
            done = kubectl.run(
                self._at, "rollout", "status", name, f"--timeout={left}s", limited=False, timeout=None, check=False
            )
            if not done.ok:
                late.append(marks.service(each))
        if late:
            raise OpsError(
                f"Not healthy after {services.HEALTHY_SECONDS} s: {', '.join(late)}.",
                f"invoke logs {late[0]} --env {self._env.name}",
            )

    def stop_jobs(self, declared: Stack) -> None:
        """Remove the owner's Jobs that are at work, and what runs by `invoke run`."""
        own = {name for name, each in declared.services.items() if each.own}
        jobs = [
            each["metadata"]["name"]
            for each in kubectl.items(self._at, ("jobs.batch",), marks.selector(self._env))
            if marks.service(each) in own and (each.get("status") or {}).get("active")
        ]
        kubectl.delete(self._at, "job", *jobs, wait=True)
        pods = [each.name for each in running.one_offs(self._env, declared) if each.running and each.service in own]
        kubectl.delete(self._at, "pod", *pods, wait=True)

    def migrate(self, job: str, variables: Mapping[str, str]) -> Completed:
        """Run a migration in a pod of its Job's template."""
        template = inside.template(self._env, self._at, job)
        pod = inside.manifest(self._env, job, template, (), entrypoint=True, terminal=False)
        main = pod["spec"]["containers"][0]
        env = [each for each in main.get("env") or () if each["name"] not in variables]
        main["env"] = [*env, *({"name": name, "value": value} for name, value in variables.items())]
        code, said = byhand.to_its_end(self._env, self._at, _of_work(pod, "migration"))
        return Completed(("migration", job), code, said, "")

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def existing(self, volumes: Sequence[Volume]) -> list[Volume]:
        """Those volumes that have claims."""
        claims = kubectl.items(self._at, ("persistentvolumeclaims",), marks.selector(self._env))
        there = {each["metadata"]["name"] for each in claims}
        return [each for each in volumes if object_name(each.name) in there]

    def in_volume(self, declared: Stack, volume: Volume, script: str) -> list[str]:
        """Command line that runs a script in a pod that has the claim, as the user of its service."""
        pod = self._keepers.get(volume.name) or self._keep(volume.name, self._holding(declared, volume))
        return kubectl.exec_argv(pod, "sh", "-c", f"set -eu; cd {FOLDER}; {script}", stdin=True)

    def _holding(self, declared: Stack, volume: Volume) -> Object:
        template = inside.template(self._env, self._at, volume.service)
        pod = inside.manifest(self._env, edge.SERVICE, template, (), entrypoint=False, terminal=False)
        claim = object_name(volume.name)
        main = {
            # Its image has what scripts need; that of a service may not.
            "image": declared.services[edge.SERVICE].image,
            "volumeMounts": [{"name": claim, "mountPath": FOLDER}],
            "securityContext": pod["spec"]["containers"][0].get("securityContext") or {},
            "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        }
        # Where its service is: a claim may be for one node at a time.
        service = {"matchLabels": {marks.SERVICE: volume.service}}
        term = {"labelSelector": service, "topologyKey": availability.HOST}
        near = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
        spec = {
            **{key: value for key, value in pod["spec"].items() if key in _OF_HOLDERS},
            "containers": [{"name": "files", **main}],
            "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}}],
            "affinity": {"podAffinity": near},
        }
        name = f"files-{claim}"[:50].rstrip("-") + pod["metadata"]["name"][-7:]
        return {**pod, "metadata": {**pod["metadata"], "name": name}, "spec": spec}

    def alike(self, source: str, target: str) -> str:
        """Nothing: whose a folder is, the storage decides."""
        return f": {source} {target}"

    def beside(self, service: str, script: str) -> None:
        """Run a script in a pod of a StatefulSet's template, with its claims."""
        pod = self._keepers.get(service) or self._keep(service, self._member(service))
        byhand.script(pod, script, service)

    def _member(self, service: str) -> Object:
        (found,) = (each for each in self._workloads(_STATEFULSET) if marks.service(each) == service)
        pod = inside.manifest(self._env, service, found["spec"]["template"], (), entrypoint=False, terminal=False)
        claims = [
            {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{found['metadata']['name']}-0"}}
            for name in (each["metadata"]["name"] for each in found["spec"].get("volumeClaimTemplates") or ())
        ]
        pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or ()), *claims]
        return pod

    # ── pods that wait ────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, key: str, pod: Object) -> Pod:
        """Start a pod that only waits, and remember it until `_release`."""
        waiting = _waiting(pod, key)
        started = Pod(self._at, waiting["metadata"]["name"], waiting["spec"]["containers"][0]["name"])
        self._keepers[key] = started
        kubectl.apply(self._at, [waiting])
        inside.await_start(self._env, self._at, started.name)
        return started

    def _release(self) -> None:
        """Remove the pods that wait, and wait until their claims are free."""
        names = [each.name for each in self._keepers.values()]
        self._keepers.clear()
        kubectl.delete(self._at, "pod", *names, wait=True)

    def remove_left(self) -> None:
        """Remove the pods that commands which were killed have left."""
        selector = f"{marks.PART_OF}={self._env.namespace},{WORK}"
        names = [each["metadata"]["name"] for each in kubectl.items(self._at, ("pods",), selector)]
        kubectl.delete(self._at, "pod", *names, wait=True)

    # ── the part `backup` ─────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, declared: Stack, tick: Tick) -> None:
        """Raise OpsError (REFUSED) when the part is not in the cluster."""
        if reason := export.omitted(declared.services[part.SERVICE]):
            raise OpsError(
                f"The part {labels.BACKUPS} of {self._env.name} is not in the cluster: {reason}.",
                "Add it there after docker-compose.backup.yml, and deploy: docs/kubernetes.md",
                REFUSED,
            )
        inside.template(self._env, self._at, part.SERVICE)

    def call(
        self,
        arguments: Sequence[str],
        tick: Tick,
        *,
        sink: IO[bytes] | None = None,
        service: str = part.SERVICE,
        attended: bool = True,
        verdict: bool = False,
    ) -> Any:
        """Run a command of ops.recovery: attended, in a pod that ends with this command; otherwise as a Job of the
        service's CronJob, which goes on when the connection is lost."""
        if not attended:
            cronjob = next((each for each in self._workloads(_CRONJOB) if marks.service(each) == service), None)
            if cronjob is None:
                raise OpsError(f"{service} is not in the cluster.", f"invoke deploy --env {self._env.name}", REFUSED)
            head, complaints, code = byhand.job(self._env, self._at, cronjob, [*arguments, "--json"], tick)
            return part.answered(head, complaints, code, sink, verdict)
        pod = self._keepers.get(service) or self._keep(service, self._recovering(service))
        words = ("python3", "-m", "ops.recovery", *arguments, "--attended", "--json")
        line = kubectl.exec_argv(pod, *words, stdin=True)
        return part.answered(*part.converse(line, tick, sink), sink, verdict)

    def _recovering(self, service: str) -> Object:
        template = inside.template(self._env, self._at, service)
        return inside.manifest(self._env, service, template, (), entrypoint=False, terminal=False)

    # ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _workloads(self, *kinds: str) -> list[Object]:
        found = kubectl.items(self._at, _KINDS, marks.selector(self._env))
        return [each for each in found if each["kind"] in kinds]

    def _of(self, containers: Iterable[Container]) -> list[Object]:
        """The workloads of containers."""
        ids, members = {each.id for each in containers}, {each.service for each in containers if kubectl.pod(each.id)}
        return [
            each
            for each in self._workloads(_DEPLOYMENT, _STATEFULSET, _CRONJOB)
            if _id(each) in ids or (each["kind"] == _STATEFULSET and marks.service(each) in members)
        ]


_ENDED = frozenset({"Succeeded", "Failed"})
# Of a service's pod, what one that only holds its files has as well.
_OF_HOLDERS = (
    *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "securityContext"),
    *("imagePullSecrets", "restartPolicy"),
)


def _id(workload: Object) -> str:
    return f"{workload['kind'].lower()}/{workload['metadata']['name']}"


def _placeholder(name: str, service: str, state: str) -> Container:
    """A workload as a container, for what only stops and starts it."""
    return Container(
        *(name, name.rpartition("/")[2], service, 1, state, "", "", "", ""),
        created=0.0,
        started=0.0,
    )


def _waiting(pod: Object, key: str) -> Object:
    """A pod with nothing to do but to wait."""
    found = _of_work(pod, key)
    main = {**found["spec"]["containers"][0], "command": ["sleep", "infinity"]}
    for word in ("args", "stdin", "stdinOnce", "tty"):
        main.pop(word, None)
    spec = {
        **found["spec"],
        "containers": [main],
        # It heeds no SIGTERM, and has nothing to finish.
        "terminationGracePeriodSeconds": 1,
        "activeDeadlineSeconds": _LONGEST_SECONDS,
    }
    return {**found, "spec": spec}


def _of_work(pod: Object, key: str) -> dict[str, Any]:
    """A pod with the label by which it is found again, in place of that of `invoke run`."""
    said = {key: value for key, value in marks.labels(pod).items() if key != marks.ONE_OFF}
    return {**pod, "metadata": {**pod["metadata"], "labels": {**said, WORK: object_name(key)}}}
