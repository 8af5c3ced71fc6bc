"""Health of an environment in a cluster: each part is asked by the probes that ask it on one host, and what Kubernetes
thinks of the pods is reported beside that."""

from __future__ import annotations

import time
from concurrent.futures import Future

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.commands import health as usual
from ops.commands.health import Report
from ops.engine import kubectl
from ops.kubernetes import running
from ops.parts import backups, readiness
from ops.parts.postgres import health as postgresql
from ops.parts.probes import Check, Probe, Seen
from ops.parts.rabbitmq import health as broker
from ops.parts.redis import health as cache
from ops.stack.model import Stack

# Parts that are asked inside their pods. The edge is asked from outside, by its address: by whoever knows it.
_PARTS = (readiness, postgresql, cache, broker, backups)
# Titles of what no part asks for.
_STACK, _CONTAINERS, _NODES = "Stack", "Containers", "Nodes"


def report(env: Environment) -> Report:
    """Ask everything. Raises OpsError only when the cluster itself cannot be asked."""
    began = time.monotonic()
    seen = running.glance(env)
    if not any(each.running for each in seen.containers):
        return Report(env.name, {_STACK: (_not_running(env),)}, time.monotonic() - began)
    declaration: Future[Stack] = Future()
    declaration.set_result(seen.stack)
    probes = Seen(env, seen.containers, declaration)
    with engine.pool(16) as pool:
        nodes = pool.submit(usual.timed, Probe("node", env.namespace, lambda: check_nodes(kubectl.place(env))))
        asked = [(part.TITLE, pool.submit(usual.timed, probe)) for part in _PARTS for probe in part.probes(probes)]
        found: dict[str, list[Check]] = {
            _CONTAINERS: list(usual.check_containers(seen.stack, seen.containers, time.time())),
            _NODES: nodes.result(),
        }
        for title, future in asked:
            found.setdefault(title, []).extend(future.result())
    groups = {title: tuple(sorted(checks, key=lambda check: check.target)) for title, checks in found.items() if checks}
    return Report(env.name, groups, time.monotonic() - began)


def _not_running(env: Environment) -> Check:
    detail = f"{env.name} is not running. Start it: invoke deploy --env {env.name}"
    return Check("stack", env.project, "fail", detail)


def check_nodes(at: kubectl.Place) -> list[Check]:
    """Whether every node of the cluster is ready. Nothing where one may not look at nodes."""
    try:
        return judge_nodes(kubectl.run(at, "get", "nodes", "--output=json", namespaced=False).json()["items"])
    except OpsError as error:
        if error.code == REFUSED:
            return []
        raise


def judge_nodes(nodes: list[kubectl.Object]) -> list[Check]:
    """A check for each node."""
    return [_node(each) for each in nodes]


def _node(node: kubectl.Object) -> Check:
    name = node["metadata"]["name"]
    held = {each["type"]: each for each in (node.get("status") or {}).get("conditions") or ()}
    ready = held.get("Ready", {})
    if ready.get("status") != "True":
        # The stack goes on while others are there: whether it does, the checks of its parts say.
        return Check("node", name, "warn", f"not ready: {ready.get('message') or ready.get('reason') or 'unknown'}")
    pressed = [kind for kind, each in held.items() if kind.endswith("Pressure") and each["status"] == "True"]
    if pressed:
        return Check("node", name, "warn", f"ready, short of resources: {', '.join(pressed)}")
    drained = (node.get("spec") or {}).get("unschedulable")
    return Check(
        "node", name, "warn" if drained else "ok", "ready, takes no new pods (drained)" if drained else "ready"
    )
