"""`invoke export kubernetes`: the resolved configuration of an environment as manifests."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import USAGE, OpsError
from ops.kubernetes import (
    availability,
    edge,
    folder,
    gateway,
    networks,
    secrets,
    storage,
    template,
    without,
    workloads,
)
from ops.kubernetes.storage import Claims, Project
from ops.kubernetes.values import PART_OF, Manifest, is_namespace, made, templates
from ops.kubernetes.without import Note
from ops.stack import contract, images, labels, model, pools
from ops.stack.model import Stack

KUBERNETES = "kubernetes"
# Settings of config/<env>/.env that only a cluster reads; all may be missing.
EDGE, GATEWAY_CLASS, DOMAIN = "KUBERNETES_EDGE", "KUBERNETES_GATEWAY_CLASS", "KUBERNETES_DOMAIN"
SIZE, CLASS, SHARED_CLASS = "KUBERNETES_VOLUME_SIZE", "KUBERNETES_STORAGE_CLASS", "KUBERNETES_SHARED_STORAGE_CLASS"

_MONITORING = "a cluster has monitoring of its own, which sees every pod"
_SIZE = re.compile(r"[1-9]\d*(Mi|Gi|Ti)")
# The order of apply: what others need comes first.
_KINDS = (
    *("Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "Service"),
    *("PodDisruptionBudget", "StatefulSet", "Job", "CronJob", "Deployment", "DaemonSet"),
    *("Gateway", "HTTPRoute", "TLSRoute"),
)


@dataclass(frozen=True)
class Export:
    """What an environment becomes. files: objects by the name of their file; notes: what is not exported, and why."""

    namespace: str
    files: Mapping[str, list[Manifest]]
    notes: list[Note] = field(default_factory=list)

    @property
    def objects(self) -> list[Manifest]:
        """Every object, in the order in which they can be applied."""
        found = (each for objects in self.files.values() for each in objects)
        return sorted(found, key=lambda each: _KINDS.index(each["kind"]))


def export(env: Environment, target: str, out: str = "", as_secrets: bool = False) -> None:
    """Write the manifests of an environment, or print its secrets. out: the folder (default: kubernetes/ of the
    project).

    Raises OpsError (USAGE) when something cannot be exported; nothing is written then.
    """
    if target != KUBERNETES:
        raise OpsError(f'There is no export to "{target}".', f"Write: invoke export {KUBERNETES}", USAGE)
    declared = load(env)
    if as_secrets:
        _refuse_terminal(env)
        found = secrets.manifests(project(env), declared, exported(declared), env.namespace)
        console.say(folder.text(found))
        return
    made_of = render(env, declared)
    place = Path(out) if out else env.project_dir / KUBERNETES
    folder.write(place / env.name, made_of.namespace, made_of.files)
    for line in without.lines(made_of.notes):
        print(f"not in Kubernetes: {line}", file=sys.stderr)
    for each in availability.alone(env, declared, exported(declared)):
        console.warn(f"{each.detail}. {each.remedy}".rstrip())
    console.say(f"{env.name} is in {relative(place / env.name)}: {console.amount(len(made_of.objects), 'object')}.")
    console.say(f"  invoke export kubernetes --env {env.name} --secrets | kubectl apply -f -")
    console.say(f"  kubectl apply -k {relative(place / env.name)}")


def _refuse_terminal(env: Environment) -> None:
    if sys.stdout.isatty():
        raise OpsError(
            "This would show every secret on the terminal.",
            f"Pass them on: invoke export kubernetes --env {env.name} --secrets | kubectl apply -f -",
            USAGE,
        )


def load(env: Environment) -> Stack:
    """The declared stack. Raises OpsError for one with mistakes."""
    declared = model.load(env)
    contract.refuse(declared, cluster=True)
    return declared


def project(env: Environment, declared: Stack | None = None) -> Project:
    """Where the files are that pods mount."""
    rendered = (
        edge.rendered(pools.declared(declared), env.namespace, env.values.get(DOMAIN) or "cluster.local")
        if declared
        else {}
    )
    return Project(env.project_dir, env.name, rendered)


def exported(declared: Stack) -> list[str]:
    """The services that run in a cluster."""
    return [name for name, service in declared.services.items() if not omitted(service)]


def omitted(service: model.Service) -> str:
    """Why a service is not exported; "" when it is."""
    if reason := service.labels.get(labels.OMIT):
        return reason
    return _MONITORING if service.monitoring else ""


def render(env: Environment, declared: Stack | None = None) -> Export:
    """What an environment becomes. Raises OpsError (USAGE) when something cannot be exported."""
    if not is_namespace(env.namespace):
        raise OpsError(
            f'{relative(env.env_file)}: "{env.namespace}" cannot be the name of a namespace.',
            "Set KUBE_NAMESPACE: up to 63 characters of a-z, 0-9 and -.",
            USAGE,
        )
    declared = declared or load(env)
    declared = _by_content(env, declared)
    found = dict(_files(env, declared))
    space = env.namespace
    for each in (each for objects in found.values() for each in objects):
        each["metadata"]["labels"][PART_OF] = space
        if each["kind"] != "Namespace":
            each["metadata"] = {"name": each["metadata"]["name"], "namespace": space, **each["metadata"]}
        for made_of in templates(each):
            made_of["metadata"]["labels"][PART_OF] = space
    return Export(space, found, list(_notes(env, declared)))


def _by_content(env: Environment, declared: Stack) -> Stack:
    """The stack with images that are built here under the name of their content: a moving tag would change no pod."""
    names = {each.service: each.content for each in images.own_images(env, declared)}
    services = {
        name: replace(service, image=names.get(name, service.image)) for name, service in declared.services.items()
    }
    return replace(declared, services=services)


def _notes(env: Environment, declared: Stack) -> Iterator[Note]:
    for name, service in declared.services.items():
        if reason := omitted(service):
            yield Note(name, "service", reason)
        else:
            yield from without.of(project(env), service, declared.document["services"][name])


def _files(env: Environment, declared: Stack) -> Iterator[tuple[str, list[Manifest]]]:
    names = exported(declared)
    entries = {name: declared.document["services"][name] for name in names}
    served = pools.declared(declared)
    source, asked = project(env, declared), claims(env, declared)
    clusters = availability.families(declared, names)
    together = storage.shared(declared, names)
    reached = _edge(env)
    hosts = [env.values.get("DOMAIN", ""), *pools.hosts(declared)]
    configs: dict[str, Manifest] = {}
    claimed: set[str] = set()
    written: dict[str, list[Manifest]] = {}
    for name in sorted(names):
        service, entry = declared.services[name], entries[name]
        template.refuse(service, entry)
        files = storage.files(source, name, entry)
        configs |= {each["metadata"]["name"]: each for each in files.configs}
        found = workloads.of(service, entry, files, served.get(name), clusters.get(name, ""), asked, together)
        found += workloads.public(service, entry, edge.KINDS[reached])
        if reached == edge.GATEWAY and (opened := workloads.published(entry)):
            tls, class_name = env.values.get("SSL_PORT", ""), env.values[GATEWAY_CLASS]
            found += gateway.of(name, workloads.component(service), opened, tls, class_name, hosts)
        # A volume that two services mount is one claim.
        written[name] = [
            each for each in found if each["kind"] != "PersistentVolumeClaim" or each["metadata"]["name"] not in claimed
        ]
        claimed |= {each["metadata"]["name"] for each in found if each["kind"] == "PersistentVolumeClaim"}
    yield "namespace", [_namespace(env.namespace)]
    yield "configuration", [configs[name] for name in sorted(configs)]
    public = {name: [each["target"] for each in workloads.published(entry)] for name, entry in entries.items()}
    reachable = {name: ports for name, ports in public.items() if ports}
    yield "networks", list(networks.policies(declared.document.get("networks") or {}, entries, reachable))
    if budgets := availability.budgets(clusters):
        yield "clusters", list(budgets.values())
    yield from written.items()


def _namespace(name: str) -> Manifest:
    found = made("Namespace", name)
    # Pods are refused; whoever applies what makes them is warned.
    found["metadata"]["labels"] |= {f"pod-security.kubernetes.io/{how}": "restricted" for how in ("enforce", "warn")}
    return found


def _edge(env: Environment) -> str:
    """How the world reaches nginx. Raises OpsError (USAGE) when that is not said in full."""
    said = env.values.get(EDGE) or edge.NODE_PORT
    if said not in edge.KINDS:
        raise OpsError(
            f'{relative(env.env_file)}: {EDGE} is "{said}".', f"Write one of: {', '.join(edge.KINDS)}.", USAGE
        )
    if said == edge.GATEWAY and not env.values.get(GATEWAY_CLASS):
        raise OpsError(
            f"{relative(env.env_file)}: {EDGE} is {said}, and {GATEWAY_CLASS} names no class.",
            "Write one of: kubectl get gatewayclasses",
            USAGE,
        )
    return said


def claims(env: Environment, declared: Stack) -> Claims:
    """How storage is asked for. Raises OpsError (USAGE) for a size that is none."""
    sizes = {volume: f"{SIZE}_{volume.upper().replace('-', '_')}" for volume in declared.document.get("volumes") or {}}
    said = {key: env.values[key] for key in (SIZE, *sizes.values()) if env.values.get(key)}
    for key, value in said.items():
        if not _SIZE.fullmatch(value):
            raise OpsError(f'{relative(env.env_file)}: {key} is "{value}".', "Write a size such as 20Gi.", USAGE)
    return Claims(
        said.get(SIZE, Claims.size),
        {volume: said[key] for volume, key in sizes.items() if key in said},
        env.values.get(CLASS, ""),
        env.values.get(SHARED_CLASS, ""),
    )
