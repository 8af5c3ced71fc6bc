"""Commands inside pods: a one-off pod of a service, a shell, psql, redis-cli.

The terminal, signals and the exit code are those of the command inside. A one-off pod has the labels of no Service, so
it gets no requests, and no deploy counts or replaces it.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ops import engine
from ops.base import undo
from ops.base.environments import Environment
from ops.base.errors import FAILED, REFUSED, OpsError
from ops.commands import inside as usual
from ops.engine import Container, kubectl
from ops.engine.kubectl import Object, Place, Pod
from ops.kubernetes import gate, marks, running
from ops.state.releases import author

_LOOK_SECONDS = 0.5
# For a node to be found, and the image to be pulled there.
_START_SECONDS = 180.0


def run(env: Environment, name: str, command: Sequence[str], entrypoint: bool = True) -> int:
    """Run a command in a one-off pod of a service, or the service's own command when there is none; its exit code.

    entrypoint: let the image's entrypoint start the command, as the service itself is started. Raises OpsError when the
    service cannot be run this way, or the environment does not run.
    """
    seen = running.glance(env)
    service = usual.find(env, seen.stack, name)
    usual.refuse_part(service)
    if not command:
        usual.refuse_second(service, [each for each in seen.containers if each.running])
    return _one_off(env, name, command, entrypoint)


def shell(env: Environment, name: str, new: bool = False) -> int:
    """A shell in a pod of a service; its exit code. new: in a one-off one, beside those that run. Raises OpsError."""
    seen = running.glance(env)
    service = usual.find(env, seen.stack, name)
    if new:
        usual.refuse_part(service)
        return _one_off(env, name, usual.SHELL, entrypoint=False)
    usual.become_shell(env, service, _up(seen))


def psql(env: Environment, database: str, arguments: Sequence[str]) -> NoReturn:
    """psql on the primary, as on one host."""
    usual.psql(env, database, arguments, _up(running.glance(env)))


def redis_cli(env: Environment, arguments: Sequence[str]) -> NoReturn:
    """redis-cli on the primary, as on one host."""
    usual.redis_cli(env, arguments, _up(running.glance(env)))


def _up(seen: running.Glance) -> list[Container]:
    return [each for each in seen.containers if each.running]


# ── one-off pods ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _one_off(env: Environment, service: str, command: Sequence[str], entrypoint: bool) -> int:
    at = kubectl.place(env)
    pod = manifest(env, service, template(env, at, service), command, entrypoint, usual.is_terminal())
    name = pod["metadata"]["name"]
    try:
        kubectl.apply(at, [pod])
        await_start(env, at, name)
        return _attended(at, Pod(at, name, pod["spec"]["containers"][0]["name"]), usual.is_terminal())
    finally:
        undo.every([("removing the pod", lambda: kubectl.delete(at, "pod", name))])


def template(env: Environment, at: Place, service: str) -> Mapping[str, Any]:
    """The template of a service's pods as they run. Raises OpsError when it is not in the cluster."""
    kinds = ("deployments.apps", "statefulsets.apps", "cronjobs.batch", "jobs.batch")
    found = kubectl.items(at, kinds, f"{marks.selector(env)},{marks.SERVICE}={service}")
    found = [each for each in found if not each["metadata"].get("ownerReferences")]
    if not found:
        raise OpsError(f"{service} does not run in {env.name}.", f"Start it: invoke deploy --env {env.name}", REFUSED)
    newest = max(found, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    spec = newest["spec"]["jobTemplate"]["spec"] if newest["kind"] == "CronJob" else newest["spec"]
    template: Mapping[str, Any] = spec["template"]
    return template


# What says how pods share a cluster, restart and are asked for their health: a one-off one does not.
_NOT_OF_ONE_OFFS = ("restartPolicy", "topologySpreadConstraints")
_NOT_OF_ITS_CONTAINER = ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "ports")


def manifest(
    env: Environment,
    service: str,
    template: Mapping[str, Any],
    command: Sequence[str],
    entrypoint: bool,
    terminal: bool,
) -> dict[str, Any]:
    """A one-off pod of a service's template, with the networks of its pods and none of its names."""
    said = template["metadata"].get("labels") or {}
    kept = {key: value for key, value in said.items() if key.partition("/")[0] == marks.NETWORK}
    main = {key: value for key, value in template["spec"]["containers"][0].items() if key not in _NOT_OF_ITS_CONTAINER}
    main |= {"stdin": True, "stdinOnce": True, "tty": terminal}
    if command and entrypoint:
        main["args"] = [*command]
    elif command:
        main |= {"command": [command[0]], "args": [*command[1:]]}
    rest = {key: value for key, value in template["spec"].items() if key not in _NOT_OF_ONE_OFFS}
    # It keeps away from no member of its cluster; beside whom it must be, it must be as well.
    affinity = {key: value for key, value in (rest.pop("affinity", None) or {}).items() if key != "podAntiAffinity"}
    rest |= {"affinity": affinity} if affinity else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{service}-run-{secrets.token_hex(3)}",
            "namespace": env.namespace,
            "labels": {**kept, marks.PART_OF: env.namespace, marks.ONE_OFF: service},
            "annotations": {marks.BY: author()},
        },
        "spec": {**rest, "containers": [main], "restartPolicy": "Never"},
    }


def await_start(env: Environment, at: Place, name: str) -> None:
    """Wait until the pod runs, or has ended. Raises OpsError when it does not start."""
    start = gate.Start(_START_SECONDS)
    while True:
        pod = kubectl.find(at, "pod", name)
        if pod is None:
            raise OpsError(f"The pod {name} was removed before it started.", code=FAILED)
        if gate.started(pod):
            return
        if why := start.failed(pod, time.monotonic()):
            remedy = f"See: invoke status --env {env.name}"
            raise gate.not_started(at, f"The pod {name}", name, why, remedy, FAILED)
        time.sleep(_LOOK_SECONDS)


def _attended(at: Place, pod: Pod, terminal: bool) -> int:
    """Be at the command until it ends; its exit code."""
    attach = ("attach", pod.name, "--container", pod.container, "--stdin", "--quiet")
    if terminal:
        engine.attended(at.argv(*attach, "--tty", limited=False))
    else:
        # What was written before anybody attached is in the log, and only there. What comes by the pipe goes in beside.
        with engine.popen(
            at.argv(*attach, limited=False), stdin=sys.stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as feeding:
            engine.show(kubectl.logs_argv(pod, "--follow"))
            engine.end([feeding])
    return ended(at, pod)


def exit_code(pod: Object | None) -> int | None:
    """The exit code of the command of a pod; None while it has none."""
    for each in ((pod or {}).get("status") or {}).get("containerStatuses") or ():
        if ended := (each.get("state") or {}).get("terminated"):
            return int(ended["exitCode"])
    return None


def ended(at: Place, pod: Pod) -> int:
    """The exit code of the command, once it has ended."""
    while True:
        found = kubectl.find(at, "pod", pod.name)
        if (code := exit_code(found)) is not None:
            return code
        if found is None:
            raise OpsError(f"The pod {pod.name} was removed while its command ran.", code=FAILED)
        time.sleep(_LOOK_SECONDS)
