"""What must be right before a deploy to a cluster touches anything. The checks judge what they are given; `run` gathers
it from the project and the API server.

What the cluster thinks of the manifests themselves is no check here: the dry run that every plan begins with says it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import REFUSED, OpsError
from ops.base.findings import FAILED, OK, WARNING, Check
from ops.engine import kubectl
from ops.engine.kubectl import Object, Place
from ops.kubernetes import availability, plan
from ops.kubernetes.plan import Plan
from ops.parts.postgres import connections
from ops.rollout import hooks
from ops.rollout import preflight as usual
from ops.stack import pools, registry

# What the commands do beside applying manifests, of which the dry run tells: API group, resource, subresource, verbs.
RIGHTS: Sequence[tuple[str, str, str, tuple[str, ...]]] = (
    ("", "secrets", "", ("get", "list", "create", "patch")),
    ("coordination.k8s.io", "leases", "", ("get", "create", "update")),
    ("", "pods", "", ("list", "create", "delete")),
    ("", "pods", "exec", ("create",)),
    ("", "pods", "log", ("get",)),
    ("", "events", "", ("list",)),
    ("batch", "jobs", "", ("delete",)),
)
_CONNECT_SECONDS = 3.0


def run(env: Environment, decided: Plan) -> list[Check]:
    """Every check for what a deploy is about to do. Raises OpsError when the cluster cannot be asked."""
    from ops.secrets import certificates
    from ops.secrets.check import check

    at, seen = kubectl.place(env), decided.seen
    with engine.pool(6) as pool:
        secrets = pool.submit(check, env)
        versions = pool.submit(lambda: kubectl.run(at, "version", "--output=json", namespaced=False).json())
        rights = pool.submit(forbidden, at)
        storage = pool.submit(_cluster_wide, at, "storageclasses.storage.k8s.io", "persistentvolumes")
        nodes = pool.submit(_cluster_wide, at, "nodes")
        found = [
            *usual.check_settings(env),
            *hooks.check(env),
            connections.check(env, seen.stack),
            *check_alone(env, seen),
            *check_registries(env, decided),
        ]
    return [
        check_versions(versions.result()),
        check_rights(at, rights.result()),
        *found,
        *check_storage(_unbound(seen), storage.result()),
        *check_nodes(seen.members(), nodes.result(), {name for _, name in seen.live}),
        *usual.check_secrets(env, secrets.result()),
        usual.check_certificate(
            env, lambda env: certificates.validate(env, pools.hosts(seen.stack)), lambda _env: False
        ),
    ]


def _cluster_wide(at: Place, *kinds: str) -> list[dict[str, Any]] | None:
    """Objects that belong to no namespace; None where one may not look at them."""
    try:
        found = kubectl.run(at, "get", ",".join(kinds), "--output=json", namespaced=False).json()
    except OpsError as error:
        if error.code == REFUSED:
            return None
        raise
    items: list[dict[str, Any]] = found["items"]
    return items


# ── kubectl and rights ────────────────────────────────────────────────────────────────────────────────────────────────


def check_versions(said: Mapping[str, Any]) -> Check:
    """kubectl may be one minor version away from the API server."""
    client, server = (said.get(each) or {} for each in ("clientVersion", "serverVersion"))
    detail = f"kubectl {client.get('gitVersion', '?')}, cluster {server.get('gitVersion', '?')}"
    apart = [int("0" + "".join(filter(str.isdigit, str(each.get("minor", ""))))) for each in (client, server)]
    if abs(apart[0] - apart[1]) <= 1:
        return Check("kubectl", OK, detail)
    remedy = "Install the version of the cluster, or one next to it: https://kubernetes.io/docs/tasks/tools/"
    return Check("kubectl", WARNING, f"{detail}: more than one minor version apart", remedy)


def forbidden(at: Place) -> list[str]:
    """What the user may not do of RIGHTS, in words. One request asks for all of them."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    **{"namespace": at.namespace, "group": group, "resource": resource, "verb": verb},
                    **({"subresource": subresource} if subresource else {}),
                }
            },
        }
        for group, resource, subresource, verbs in RIGHTS
        for verb in verbs
    ]
    asked = kubectl.run(
        at,
        *("create", "--output=json", "--filename=-"),
        namespaced=False,
        input=json.dumps(kubectl.as_list(reviews)),
    )
    return [
        f"{each['verb']} {'/'.join(filter(None, (each['resource'], each.get('subresource', ''))))}"
        for answer in answers(asked.stdout)
        if not (answer.get("status") or {}).get("allowed")
        for each in (answer["spec"]["resourceAttributes"],)
    ]


def answers(text: str) -> Iterator[dict[str, Any]]:
    """The objects of an answer: kubectl prints a list, or one document after the other."""
    decoder, position = json.JSONDecoder(), 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        found, position = decoder.raw_decode(text, position)
        yield from found.get("items", [found])


def check_rights(at: Place, missing: Sequence[str]) -> Check:
    """What the user may do in the namespace. missing: what is not allowed."""
    if not missing:
        return Check("rights", OK, f"may do what a deploy does in {at.namespace}")
    remedy = f"Ask for the role `admin` in the namespace {at.namespace}: docs/kubernetes.md"
    return Check("rights", FAILED, f"the user of {at.context} may not {', '.join(missing)}", remedy)


# ── what the cluster has ──────────────────────────────────────────────────────────────────────────────────────────────


def _unbound(seen: plan.Seen) -> dict[str, str]:
    """The storage class of each claim that a deploy makes, by the claim or the workload; "" is the default one."""
    specs = {
        each["metadata"]["name"]: spec
        for each in seen.wanted
        if plan.key(each) not in seen.live
        for spec in (
            [each["spec"]]
            if each["kind"] == "PersistentVolumeClaim"
            else [made["spec"] for made in (each.get("spec") or {}).get("volumeClaimTemplates") or ()]
        )
    }
    return {name: str(spec.get("storageClassName", "")) for name, spec in specs.items()}


_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def check_storage(claims: Mapping[str, str], objects: Iterable[Object] | None) -> Iterator[Check]:
    """Whether something provides the volumes that are claimed. claims: the storage class by claim; objects: storage
    classes and volumes of the cluster, None when they may not be seen."""
    if objects is None or not claims:
        return
    there = [*objects]
    classes = {each["metadata"]["name"]: each for each in there if each["kind"] == "StorageClass"}
    # A volume that somebody made by hand may name a class that is no object.
    volumes = {str(each["spec"].get("storageClassName", "")) for each in there if each["kind"] == "PersistentVolume"}
    defaults = [
        name for name, each in classes.items() if (each["metadata"].get("annotations") or {}).get(_DEFAULT) == "true"
    ]
    for wanted in sorted(set(claims.values())):
        users = ", ".join(name for name, each in claims.items() if each == wanted)
        have = f"The cluster has: {', '.join(sorted(classes)) or 'none'}."
        if wanted and wanted not in classes and wanted not in volumes:
            detail = f"there is no storage class {wanted}, which {users} would use"
            yield Check("storage", FAILED, detail, f"Set KUBERNETES_STORAGE_CLASS in the .env file. {have}")
        elif not wanted and not defaults and "" not in volumes:
            detail = f"no storage class is the default, so nothing provides the volumes of {users}"
            yield Check("storage", FAILED, detail, f"Name one: KUBERNETES_STORAGE_CLASS in the .env file. {have}")
        else:
            yield Check("storage", OK, f"{wanted or ', '.join(defaults) or 'volumes made by hand'} for {users}")


def check_nodes(
    members: Mapping[str, Collection[str]], nodes: Iterable[Object] | None, there: Collection[str] = ()
) -> Iterator[Check]:
    """Whether there is a node for every member of a cluster. nodes: None when they may not be seen; there: members that
    exist, so that one is away with its node, which must keep no release back."""
    if nodes is None or not members:
        return
    usable = [each["metadata"]["name"] for each in nodes if _takes_pods(each)]
    largest = max(members, key=lambda family: len(members[family]))
    most = len(members[largest])
    if len(usable) >= most:
        yield Check("nodes", OK, f"{len(usable)} take pods")
        return
    detail = f"{len(usable)} take pods, and {', '.join(members[largest])} must be on {most} different ones"
    status = WARNING if {*members[largest]} <= {*there} else FAILED
    yield Check("nodes", status, detail, "Add nodes, let drained ones take pods (kubectl uncordon), or run fewer.")


def _takes_pods(node: Object) -> bool:
    spec = node.get("spec") or {}
    ready = {each["type"]: each["status"] for each in (node.get("status") or {}).get("conditions") or ()}.get("Ready")
    closed = any(each.get("effect") in {"NoSchedule", "NoExecute"} for each in spec.get("taints") or ())
    return ready == "True" and not spec.get("unschedulable") and not closed


def check_alone(env: Environment, seen: plan.Seen) -> Iterator[Check]:
    """Parts of the data tier that have one member, and what its loss costs."""
    for line in availability.alone(env, seen.stack, list(seen.stack.services)):
        yield Check("availability", WARNING, line.detail, line.remedy)


# ── images ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_registries(env: Environment, decided: Plan, answers: Callable[[str], bool] | None = None) -> Iterator[Check]:
    """Where images of ours go. answers: whether a registry takes connections."""
    seen = decided.seen
    answers = answers or is_reachable
    for place in sorted({registry.host(each.content) for each in seen.unpushed}):
        if not answers(place):
            detail = f"{place} takes no connection from here, and there are images to push"
            remedy = f"Check the network, and IMAGE_PREFIX in {relative(env.env_file)}."
            yield Check("registry", WARNING, detail, remedy)
        else:
            yield Check("registry", OK, f"{place} takes connections")


def is_reachable(place: str) -> bool:
    """Whether HOST or HOST:PORT takes a connection by TCP. A proxy that the engine uses is not asked."""
    host, _, port = place.partition(":")
    try:
        socket.create_connection((host, int(port or 443)), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
