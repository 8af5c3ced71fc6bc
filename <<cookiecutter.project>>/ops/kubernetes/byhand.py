"""Pods and Jobs that a command starts and waits for."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ops import engine
from ops.base import undo
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.base.signals import undisturbed
from ops.data.site import checked
from ops.engine import kubectl
from ops.engine.kubectl import Object, Place, Pod
from ops.kubernetes import inside, marks

_LOOK_SECONDS = 0.5
# For how long the cluster may not answer before a command gives up waiting.
_SILENCE_SECONDS = 120.0


def patch(at: Place, object: Object, change: Mapping[str, Any]) -> None:
    """Change some fields of an object; None removes one."""
    name = f"{object['kind'].lower()}/{object['metadata']['name']}"
    kubectl.run(at, "patch", name, "--type=merge", "--patch", json.dumps(change), "--output=name")


def script(pod: Pod, text: str, what: str) -> str:
    """Run a shell script in a pod: what it prints. Raises OpsError with its complaint."""
    return checked(kubectl.exec_argv(pod, "sh", "-c", text), what)


def to_its_end(env: Environment, at: Place, pod: Object) -> tuple[int, str]:
    """Run a pod to its end: its exit code, and what it wrote. Raises OpsError when it does not start."""
    name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
    try:
        kubectl.apply(at, [pod])
        inside.await_start(env, at, name)
        code = inside.ended(at, Pod(at, name, container))
        return code, kubectl.run(at, "logs", name, "--container", container, limited=False).stdout
    finally:
        undo.every([("removing the pod", lambda: kubectl.delete(at, "pod", name))])


def job(
    env: Environment, at: Place, cronjob: Object, arguments: Sequence[str], tick: Callable[[str], None]
) -> tuple[bytes, list[str], int]:
    """Run a scheduled job now, with other arguments, to its end: the document that it answers, its log, and its exit
    code.

    It goes on when this command is killed or cut off. tick: hears what it is doing. Raises OpsError when it does not
    start, or the cluster no longer answers; interrupted, it ends the job first.
    """
    made = of_cronjob(cronjob, arguments)
    name = made["metadata"]["name"]
    kubectl.run(at, "create", "--filename=-", "--output=name", input=json.dumps(made))
    try:
        pod = _started(env, at, name)
    except BaseException:
        with undisturbed():
            kubectl.delete(at, "job", name)
        raise
    try:
        code = _watch(at, pod, tick)
        lines = kubectl.run(at, "logs", pod.name, "--container", pod.container, limited=False, timeout=None).stdout
        head, log = parted(lines.splitlines())
        return head, log, code
    except KeyboardInterrupt:
        with undisturbed():
            kubectl.delete(at, "job", name, wait=True)
        raise


def of_cronjob(cronjob: Object, arguments: Sequence[str]) -> dict[str, Any]:
    """A Job of a CronJob's template, as `kubectl create job --from` makes it. arguments: of its command."""
    metadata, spec = cronjob["metadata"], cronjob["spec"]["jobTemplate"]["spec"]
    template = spec["template"]
    main, *others = template["spec"]["containers"]
    pod = {**template["spec"], "containers": [{**main, "args": [*arguments]}, *others]}
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{metadata['name'][:52]}-{secrets.token_hex(4)}",
            "namespace": metadata["namespace"],
            "labels": marks.labels(cronjob),
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
            # Its history is that of the CronJob.
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {**spec, "template": {**template, "spec": pod}},
    }


def parted(lines: Sequence[str]) -> tuple[bytes, list[str]]:
    """What a job answered, and what it wrote into its log: in a log both are one stream. The answer is the last line
    that is a JSON document and no entry of the log."""
    log, answer = [], b""
    for line in lines:
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if isinstance(document, list) or (isinstance(document, dict) and "event" not in document):
            answer = line.encode()
        elif isinstance(document, dict):
            log.append(str(document["event"]))
        elif line.strip():
            log.append(line.strip())
    return answer, log


def _started(env: Environment, at: Place, name: str) -> Pod:
    """The pod of a job, once it runs."""
    while True:
        pods = kubectl.items(at, ("pods",), f"batch.kubernetes.io/job-name={name}")
        if pods:
            inside.await_start(env, at, pods[0]["metadata"]["name"])
            return Pod(at, pods[0]["metadata"]["name"], pods[0]["spec"]["containers"][0]["name"])
        if kubectl.find(at, "job", name) is None:
            raise OpsError(f"The job {name} was removed before it started.")
        time.sleep(_LOOK_SECONDS)


def _watch(at: Place, pod: Pod, tick: Callable[[str], None]) -> int:
    """Follow a pod to its end, through lost connections; its exit code."""
    answered = time.monotonic()
    while True:
        line = kubectl.logs_argv(pod, "--follow", "--tail=1")
        with engine.popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as following:
            for raw in engine.pipe(following.stdout):
                _, log = parted([raw.decode(errors="replace")])
                if log:
                    tick(log[0])
        try:
            found = kubectl.find(at, "pod", pod.name)
        except OpsError as error:
            if time.monotonic() - answered > _SILENCE_SECONDS:
                raise OpsError(f"{error.message} The job goes on in the cluster.", error.remedy, error.code) from None
            time.sleep(_LOOK_SECONDS)
            continue
        answered = time.monotonic()
        if found is None:
            raise OpsError(f"The pod {pod.name} was removed while it was at work.")
        if (code := inside.exit_code(found)) is not None:
            return code
        time.sleep(_LOOK_SECONDS)
