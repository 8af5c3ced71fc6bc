"""What a deploy to a cluster does: the server says what would change, and it is told in the words of a deploy on one
host.

Everything is sent to the API server for a dry run, and what would be is compared with what is. So a plan knows what
defaults, admission and other people's hands make of a manifest, and an error of the API server comes before anything
is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container, kubectl
from ops.engine.kubectl import Object, Place
from ops.kubernetes import availability, export, marks, running
from ops.kubernetes import secrets as contents
from ops.parts import provision
from ops.rollout import plan
from ops.rollout.plan import Operation, Phase
from ops.stack import contract, differences, images, model, registry
from ops.stack.images import OwnImage
from ops.stack.model import Stack
from ops.stack.owned import Owned
from ops.state import digests, memory, releases
from ops.state.drift import NEW_IMAGE

# The kind and the name of an object.
Key = tuple[str, str]

# What runs pods, and what makes such.
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
JOB, CRONJOB, SECRET, NAMESPACE = "Job", "CronJob", "Secret", "Namespace"
# Kinds of which something may be left that nothing declares any more. Claims are not among them: they are the data.
_KINDS = (
    *("deployments.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch", "cronjobs.batch"),
    *("services", "configmaps", "serviceaccounts", "secrets", "persistentvolumeclaims"),
    *("networkpolicies.networking.k8s.io", "poddisruptionbudgets.policy"),
)
_CLAIM = "PersistentVolumeClaim"
# Named by their content: the new one is another object, and the old one goes when nobody uses it any more.
BY_CONTENT = frozenset({"ConfigMap", JOB})
# Of an object, what the server notes by itself.
_NOTED = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
# The same, as annotations.
_COUNTED = ("deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation")
_ABSENT = "not in the cluster yet"
# On the template of a pod: of the content of its secrets, sealed.
STAMP = "stack/secrets"


@dataclass(frozen=True)
class Apply(Operation):
    """Bring the objects of a service, or of none, to what is declared. objects: which."""

    objects: tuple[Key, ...] = field(kw_only=True, default=())
    word, done, replaces = "update", "updated", False


@dataclass(frozen=True)
class Create(Apply):
    """Create the workload of a service that has none."""

    word, done, replaces = "create", "created", True


@dataclass(frozen=True)
class RollOut(Apply):
    """Replace the pods of a service, without losing a request."""

    word, done, replaces = "roll out", "replaced", True


@dataclass(frozen=True)
class Scale(Apply):
    """Run another number of pods."""

    word, done, replaces = "scale", "scaled", True


@dataclass(frozen=True)
class Replace(Apply):
    """Replace the pods of a service that holds data and does not run, so that nobody need be asked."""

    word, done, replaces = "replace", "replaced", True


@dataclass(frozen=True)
class Restart(Apply):
    """Replace the pods of a service that holds data, one at a time."""

    word, done, replaces = "restart", "restarted", True
    asks: ClassVar[bool] = True


@dataclass(frozen=True)
class Run(Apply):
    """Run a job to its end."""

    word, done, replaces = "run", "ran", True


@dataclass(frozen=True)
class Await(Apply):
    """Wait for a job that an earlier deploy began."""

    word, done = "wait for", "ended"


@dataclass(frozen=True)
class Schedule(Apply):
    """Schedule a job."""

    word, done, replaces = "schedule", "scheduled", True


@dataclass(frozen=True)
class Remove(Apply):
    """Remove an object that nothing declares any more."""

    word, done, replaces = "remove", "removed", True


@dataclass(frozen=True)
class Push(Operation):
    """Push an image that is built here to its registry, where the cluster pulls it."""

    image: OwnImage = field(kw_only=True)
    word, done, replaces = "push", "pushed", False


@dataclass(frozen=True)
class Seen:
    """What is declared and what exists, read at one moment.

    wanted: every object but secrets, stamped; secrets: with their content; live: our objects, and would: what a dry run
    makes of those that are wanted, by key; containers: the pods; deployed: services as the last deploy declared them;
    owned: what the services own in the data tier, and needed: what is missing of it; namespace: whether there is one;
    unbuilt, unpushed: images of ours that are not on this machine, and not in the registry.
    """

    at: Place
    stack: Stack
    wanted: tuple[Object, ...]
    secrets: tuple[Object, ...]
    live: Mapping[Key, Object]
    would: Mapping[Key, Object]
    containers: tuple[Container, ...] = ()
    deployed: Mapping[str, Any] = field(default_factory=dict)
    owned: Owned = Owned()
    needed: tuple[provision.Need, ...] = ()
    namespace: bool = True
    unbuilt: tuple[OwnImage, ...] = ()
    unpushed: tuple[OwnImage, ...] = ()

    def workloads(self) -> dict[str, Object]:
        """The wanted workloads, by service."""
        return {marks.service(each): each for each in self.wanted if each["kind"] in WORKLOADS}

    def members(self) -> dict[str, list[str]]:
        """The members of each cluster of the data tier, by its name."""
        found: dict[str, list[str]] = {}
        for name, each in self.workloads().items():
            labels = (each["spec"]["template"].get("metadata") or {}).get("labels") or {}
            if family := labels.get(availability.MEMBER):
                found.setdefault(str(family), []).append(name)
        return found

    def away(self, data: Sequence[str]) -> list[str]:
        """Services of the data tier that a deploy must wait for: single ones that are not ready, and all members of a
        cluster that lacks a half of them. A member that is away with its node keeps no release back."""
        ready = {each.service for each in self.containers if each.ready}
        clusters = [*self.members().values()]
        together = {name for members in clusters for name in members}
        groups = [*clusters, *([name] for name in data if name not in together)]
        return [name for group in groups if 2 * len(ready & {*group}) < len(group) for name in group]


@dataclass(frozen=True)
class Plan:
    """What a deploy does, in order."""

    seen: Seen
    operations: tuple[Operation, ...]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.operations

    def of(self, *phases: Phase) -> list[Operation]:
        """The operations of some phases."""
        return [each for each in self.operations if each.phase in phases]

    def of_services(self) -> dict[str, Operation]:
        """What happens to each service that changes; of several things the last, which is the largest."""
        return {each.subject: each for each in self.operations}


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def survey(env: Environment, declared: Stack | None = None) -> Seen:
    """Read everything a decision needs. declared: instead of what the Compose files say. Raises OpsError (REFUSED) when
    the cluster cannot be asked, or does not accept something."""
    at = kubectl.place(env)
    everything = declared or model.load(env)
    contract.refuse(everything, cluster=True)
    here = {name: everything.services[name] for name in export.exported(everything)}
    stack = replace(everything, services=here)
    namespace = kubectl.find(at, "namespace", at.namespace, namespaced=False) is not None
    state = memory.load(env)
    secrets = contents.manifests(export.project(env, everything), everything, list(here), at.namespace)
    wanted = stamped(map(lasting, export.render(env, everything).objects), secrets, state.key)
    found = live(env, at, wanted) if namespace else {}
    # A job is named by its template, and cannot be changed: one that is there is what is wanted.
    asked = [each for each in wanted if not (each["kind"] == JOB and key(each) in found)]
    would = dry_run(at, asked) if namespace else {}
    containers = running.containers(env, stack) if namespace else []
    owned = provision.declared(env, stack)
    needed = provision.look(env, owned, containers)
    current = next(iter(releases.reachable(releases.entries(state))), None)
    document = releases.resolved(state, current, env.project_dir) if current else None
    own = [each for each in images.own_images(env, stack) if registry.host(each.content)]
    unpushed = registry.missing(own)
    built = engine.image_ids([each.content for each in unpushed])
    return Seen(
        at,
        stack,
        tuple(wanted),
        tuple(secrets),
        found,
        would,
        tuple(containers),
        (document or {}).get("services", {}),
        owned,
        needed,
        namespace,
        tuple(each for each in unpushed if each.content not in built),
        tuple(unpushed),
    )


def live(env: Environment, at: Place, wanted: Iterable[Object]) -> dict[Key, Object]:
    """Our objects that are there, by key."""
    kinds = {*_KINDS, *(_resource(each) for each in wanted if each["kind"] != NAMESPACE)}
    found = kubectl.items(at, sorted(kinds), marks.selector(env))
    return {key(each): each for each in found if not each["metadata"].get("ownerReferences")}


def _resource(object: Object) -> str:
    group = object["apiVersion"].rpartition("/")[0]
    plain = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}.get(
        object["kind"], f"{object['kind'].lower()}s"
    )
    return f"{plain}.{group}" if group else plain


def dry_run(at: Place, wanted: Sequence[Object]) -> dict[Key, Object]:
    """What the server would make of objects, by key. Raises OpsError (REFUSED) when it does not accept one."""
    try:
        found = kubectl.apply(at, [each for each in wanted if each["kind"] != NAMESPACE], dry_run=True)
    except OpsError as error:
        raise OpsError(f"Nothing was changed. {error.message}", error.remedy, REFUSED) from None
    return {key(each): each for each in found}


def key(object: Object) -> Key:
    """The kind and the name of an object."""
    return object["kind"], object["metadata"]["name"]


def lasting(object: Object) -> Object:
    """The object; a Job without the time after which it is removed: while it is there, it is known to have run."""
    if object["kind"] != JOB:
        return object
    spec = {name: value for name, value in object["spec"].items() if name != "ttlSecondsAfterFinished"}
    return {**object, "spec": spec}


def stamped(wanted: Iterable[Object], secrets: Sequence[Object], seal: str) -> list[Object]:
    """Objects whose pods change with the content of their secrets. seal: a key, so that nobody can try passwords
    against what is written on a pod, which more people may read than secrets."""
    content = {each["metadata"]["name"]: each for each in secrets}
    return [_stamped(each, content, seal) for each in wanted]


def _stamped(object: Object, content: Mapping[str, Object], seal: str) -> Object:
    template = template_of(object)
    if template is None:
        return object
    used = sorted(content.keys() & set(_secrets_of(template["spec"])))
    if not used:
        return object
    digest = hashlib.sha256()
    for name in used:
        digest.update(repr((name, sorted((content[name].get("data") or {}).items()))).encode())
    stamp = digests.seal(seal, digest.hexdigest())[:16]
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), STAMP: stamp}
    changed = {**template, "metadata": {**metadata, "annotations": annotations}}
    if object["kind"] == CRONJOB:
        spec = object["spec"]
        job = spec["jobTemplate"]
        return {**object, "spec": {**spec, "jobTemplate": {**job, "spec": {**job["spec"], "template": changed}}}}
    return {**object, "spec": {**object["spec"], "template": changed}}


def template_of(object: Object) -> Mapping[str, Any] | None:
    """The template of the pods of an object; None for one that makes none. That of a Job cannot be changed."""
    if object["kind"] in WORKLOADS:
        found: Mapping[str, Any] = object["spec"]["template"]
        return found
    if object["kind"] == CRONJOB:
        nested: Mapping[str, Any] = object["spec"]["jobTemplate"]["spec"]["template"]
        return nested
    return None


def _secrets_of(spec: Mapping[str, Any]) -> Iterator[str]:
    """Names of the secrets that a pod mounts or has in its environment."""
    for volume in spec.get("volumes") or ():
        if secret := volume.get("secret"):
            yield secret["secretName"]
        for source in (volume.get("projected") or {}).get("sources") or ():
            if secret := source.get("secret"):
                yield secret["name"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for each in container.get("env") or ():
            if reference := (each.get("valueFrom") or {}).get("secretKeyRef"):
                yield reference["name"]


# ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(seen: Seen) -> Plan:
    """The plan for what was seen."""
    operations = [*_images(seen), *_secrets(seen), *_objects(seen), *_provisions(seen), *_leftovers(seen)]
    ordered = sorted(operations, key=lambda each: each.phase)
    return Plan(seen, tuple(ordered))


def _images(seen: Seen) -> Iterator[Operation]:
    for each in seen.unbuilt:
        yield plan.Build(Phase.IMAGES, each.service, ("its image is not on this machine",), image=each)
    for each in seen.unpushed:
        yield Push(Phase.IMAGES, each.service, (f"{each.content} is not in the registry",), image=each)


def _secrets(seen: Seen) -> Iterator[Operation]:
    causes = []
    for each in seen.secrets:
        there = seen.live.get(key(each))
        if there is None:
            causes.append(f"{each['metadata']['name']}: {_ABSENT}")
        elif (there.get("data") or {}) != (each.get("data") or {}):
            causes.append(f"{each['metadata']['name']} changed")
    if causes:
        keys = tuple(key(each) for each in seen.secrets)
        yield Apply(Phase.TIDY, "secrets", tuple(causes), objects=keys)


def _objects(seen: Seen) -> Iterator[Operation]:
    """What happens to each service, and to what belongs to none, by its kind."""
    groups: dict[str, list[Object]] = {}
    for each in seen.wanted:
        if changes(seen, each):
            groups.setdefault(marks.service(each) or each["kind"], []).append(each)
    for subject, changed in groups.items():
        yield _operation(seen, subject, changed)


def _title(object: Object) -> str:
    return f"{object['kind']} {object['metadata']['name']}"


def changes(seen: Seen, object: Object) -> list[str]:
    """What would change of an object, in words; nothing when it is as declared."""
    if object["kind"] == NAMESPACE:
        return [] if seen.namespace else [f"there is no namespace {seen.at.namespace} yet"]
    there, would = seen.live.get(key(object)), seen.would.get(key(object))
    if there is None:
        return [_ABSENT]
    if object["kind"] == JOB:
        ended = conditions(there)
        return [] if "Complete" in ended else ["it failed before"] if "Failed" in ended else ["it runs already"]
    if would is None:
        return []
    return list(differing(clean(there), clean(would)))


def conditions(object: Object) -> set[str]:
    """The conditions of an object that hold."""
    found = (object.get("status") or {}).get("conditions") or ()
    return {each["type"] for each in found if each["status"] == "True"}


def clean(object: Object) -> dict[str, Any]:
    """An object without what the server notes by itself."""
    metadata = {name: value for name, value in object["metadata"].items() if name not in _NOTED}
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name not in _COUNTED}
    metadata["annotations"] = annotations
    return {**{name: value for name, value in object.items() if name != "status"}, "metadata": metadata}


def differing(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Where two objects differ, a line for each place."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differing(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differing(before, after, f"{path}[{_named(after, number)}]")
    elif (old or None) != (new or None):
        if isinstance(old or new, (Mapping, list)):
            yield f"{path} {'added' if not old else 'removed' if not new else 'changed'}"
        else:
            yield f"{path}: {_shown(old)} → {_shown(new)}"


def _named(value: Any, number: int) -> str:
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else str(number)


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _operation(seen: Seen, subject: str, changed: Sequence[Object]) -> Operation:
    """The one operation on a service, whatever of it changes."""
    keys = tuple(key(each) for each in changed)
    main = next((each for each in changed if each["kind"] in (*WORKLOADS, JOB, CRONJOB)), None)
    if main is None:
        return Apply(Phase.TIDY, subject, tuple(_paths(seen, changed)), objects=keys)
    kind, there = main["kind"], seen.live.get(key(main))
    phase = phase_of(seen.stack, main)
    if kind == JOB:
        if there and "Failed" not in conditions(there):
            return Await(Phase.JOBS, subject, tuple(changes(seen, main)), objects=keys)
        known = subject in seen.deployed
        causes = _explained(seen, subject) or ["its image or settings changed" if known else "it has not run yet"]
        return Run(Phase.JOBS, subject, tuple(changes(seen, main) if there else causes), objects=keys)
    if there is None:
        return (Schedule if kind == CRONJOB else Create)(phase, subject, (_ABSENT,), objects=keys)
    explained, beneath = _explained(seen, subject), list(_beneath(seen, changed))
    if any(each.startswith("image ") for each in explained):
        beneath = [each for each in beneath if each != NEW_IMAGE]
    causes = [*explained, *beneath] or list(_paths(seen, changed))
    if kind == CRONJOB:
        return Schedule(phase, subject, tuple(causes), objects=keys)
    would = seen.would[key(main)]
    if not list(differing(template_of(clean(there)), template_of(clean(would)))):
        before, after = there["spec"].get("replicas"), would["spec"].get("replicas")
        if before != after:
            return Scale(phase, subject, (f"{before} -> {after}",), objects=keys)
        return Apply(phase, subject, tuple(_paths(seen, changed)), objects=keys)
    if phase != Phase.DATA_TIER:
        return RollOut(phase, subject, tuple(causes), objects=keys)
    in_use = any(each.running and not each.looping for each in seen.containers if each.service == subject)
    return (Restart if in_use else Replace)(phase, subject, tuple(causes), objects=keys)


def _explained(seen: Seen, subject: str) -> list[str]:
    """Why, by the Compose files; nothing when these say nothing new."""
    old, new = seen.deployed.get(subject), (seen.stack.document.get("services") or {}).get(subject)
    return differences.explain(old, new) if old and new else []


def _beneath(seen: Seen, changed: Sequence[Object]) -> Iterator[str]:
    """Causes that no Compose file shows: the content of files, secrets and images."""
    for each in changed:
        there, would = seen.live.get(key(each)), seen.would.get(key(each))
        before, after = (template_of(clean(side)) if side else None for side in (there, would))
        if not before or not after:
            continue
        if _stamp(before) != _stamp(after):
            yield "its secrets changed"
        if (old := _files(before)) != (new := _files(after)):
            yield f"the files in {', '.join(sorted({_stem(name) for name in old ^ new}))} changed"
        for one, other in zip(before["spec"]["containers"], after["spec"]["containers"], strict=False):
            if one["image"] != other["image"]:
                yield NEW_IMAGE


def _stamp(template: Mapping[str, Any]) -> str:
    return str(((template.get("metadata") or {}).get("annotations") or {}).get(STAMP, ""))


def _files(template: Mapping[str, Any]) -> set[str]:
    volumes = template["spec"].get("volumes") or ()
    found = {each["configMap"]["name"] for each in volumes if "configMap" in each}
    sources = [source for each in volumes for source in (each.get("projected") or {}).get("sources") or ()]
    return found | {each["configMap"]["name"] for each in sources if "configMap" in each}


def _stem(name: str) -> str:
    """The name of a ConfigMap without what its content adds."""
    return name.rpartition("-")[0] or name


def _paths(seen: Seen, changed: Sequence[Object]) -> Iterator[str]:
    for each in changed:
        title = _title(each) if marks.service(each) else each["metadata"]["name"]
        for where in changes(seen, each):
            yield f"{title}: {where}"


def phase_of(stack: Stack, object: Object) -> Phase:
    """When the workload of a service has its turn."""
    name = marks.service(object)
    service = stack.services.get(name)
    if object["kind"] == CRONJOB:
        return Phase.SCHEDULED_JOBS
    if service is None:
        return Phase.DATA_TIER if object["kind"] == "StatefulSet" else Phase.SERVICES
    if name in stack.rolling:
        return Phase.ROLLOUT
    return plan.phase_of(stack, name)


def _provisions(seen: Seen) -> Iterator[Operation]:
    """What the services own and the data tier lacks."""
    for each in seen.needed:
        phase = Phase.PROVISION_NEW if each.later else Phase.PROVISION
        yield plan.Provision(phase, each.service, each.causes, part=each.part)


def _leftovers(seen: Seen) -> Iterator[Operation]:
    """What is there and not declared any more, but for data, and for what is named by its content."""
    for each in leftovers(seen):
        if each["kind"] not in BY_CONTENT:
            subject = marks.service(each) if each["kind"] in WORKLOADS else _title(each)
            yield Remove(Phase.LEFTOVERS, subject or _title(each), ("not declared any more",), objects=(key(each),))


def leftovers(seen: Seen) -> list[Object]:
    """Our objects that nothing declares any more. Claims stay: they are the data."""
    wanted = {key(each) for each in (*seen.wanted, *seen.secrets)}
    return [each for each in seen.live.values() if key(each) not in wanted and each["kind"] != _CLAIM]
