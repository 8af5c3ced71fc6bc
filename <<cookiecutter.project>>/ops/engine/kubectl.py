"""kubectl: the only module that says it. Command lines are lists of arguments, answers are JSON, complaints become
sentences.

Context and namespace stand on every command line, so nothing depends on what `kubectl config use-context` was last. Who
one is, and where the cluster is, kubectl reads from the kubeconfig of the person (KUBECONFIG).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.base.environments import Environment
from ops.base.errors import FAILED, REFUSED, OpsError
from ops.engine import process
from ops.engine.results import Completed, reason

KUBECTL = "kubectl"
# The owner of the fields that we declare: what somebody else sets beside them, such as an autoscaler, stays.
MANAGER = "enterprise-stack"
# The label of what the commands keep in the namespace for themselves: the lock, and what was deployed.
RECORD = "stack/record"
# A request that an API server has not answered by then will not be answered.
_REQUEST = "30s"
# How the id of a container in a pod begins; those of Docker are hexadecimal.
_POD = "kubernetes:"

# An object of Kubernetes, as JSON.
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where an environment is: the context of the kubeconfig, which names the cluster and the user, and the
    namespace."""

    context: str
    namespace: str

    def argv(self, *words: str, namespaced: bool = True, limited: bool = True) -> list[str]:
        """Command line of kubectl here. limited: a request must be answered within _REQUEST; not for what waits."""
        return [
            *(KUBECTL, "--context", self.context),
            *(("--namespace", self.namespace) if namespaced else ()),
            *((f"--request-timeout={_REQUEST}",) if limited else ()),
            *words,
        ]


@dataclass(frozen=True)
class Pod:
    """One container of a pod."""

    place: Place
    name: str
    container: str

    @property
    def id(self) -> str:
        """Its id among containers: kubernetes:CONTEXT/NAMESPACE/POD/CONTAINER. A context may have slashes."""
        return f"{_POD}{self.place.context}/{self.place.namespace}/{self.name}/{self.container}"


def pod(container_id: str) -> Pod | None:
    """The pod that the id of a container means; None for one of Docker's."""
    if not container_id.startswith(_POD):
        return None
    context, namespace, name, container = container_id.removeprefix(_POD).rsplit("/", 3)
    return Pod(Place(context, namespace), name, container)


def place(env: Environment) -> Place:
    """Where an environment is."""
    return Place(env.values.get("KUBE_CONTEXT", ""), env.namespace)


def exec_argv(at: Pod, *command: str, stdin: bool = False, terminal: bool = False) -> list[str]:
    """Command line that runs something in a container of a pod."""
    options = (*(("--stdin",) if stdin or terminal else ()), *(("--tty",) if terminal else ()))
    return at.place.argv(
        *("exec", *options, "--quiet", at.name, "--container", at.container, "--", *command), limited=False
    )


def logs_argv(at: Pod, *options: str) -> list[str]:
    """Command line that shows what a container of a pod wrote."""
    return at.place.argv("logs", at.name, "--container", at.container, *options, limited=False)


def run(at: Place, *words: str, namespaced: bool = True, limited: bool = True, **options: Any) -> Completed:
    """Run kubectl; options as of `process.run`. Raises OpsError when it is not installed or cannot reach the cluster as
    that user, and (check) when it fails."""
    if not shutil.which(KUBECTL):
        raise OpsError(
            "kubectl is not installed or not on PATH.",
            "Install the version of your cluster, or one next to it: https://kubernetes.io/docs/tasks/tools/",
            REFUSED,
        )
    check = options.pop("check", True)
    done = process.run(at.argv(*words, namespaced=namespaced, limited=limited), check=False, **options)
    if not done.ok:
        if known := explain(at, done.stderr):
            raise known
        if check:
            raise failure(done)
    return done


def items(at: Place, kinds: Sequence[str], selector: str = "") -> list[dict[str, Any]]:
    """Every object of some kinds, with labels that a selector means."""
    done = run(at, "get", ",".join(kinds), *(("--selector", selector) if selector else ()), "--output=json")
    found: list[dict[str, Any]] = _document(done).get("items", [])
    return found


def find(at: Place, kind: str, name: str, namespaced: bool = True) -> dict[str, Any] | None:
    """An object of a name; None when there is none."""
    done = run(at, "get", kind, name, "--ignore-not-found", "--output=json", namespaced=namespaced)
    return _document(done) if done.stdout.strip() else None


def apply(at: Place, objects: Sequence[Object], dry_run: bool = False) -> list[dict[str, Any]]:
    """Apply objects on the server, by standard input, and return them as they are then.

    dry_run: change nothing, and return what would be. Raises OpsError that names what the API server refuses.
    """
    if not objects:
        return []
    done = run(
        at,
        *("apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}"),
        *(("--dry-run=server",) if dry_run else ()),
        *("--output=json", "--filename=-"),
        input=json.dumps(as_list(objects)),
        timeout=None,
        check=False,
    )
    if not done.ok:
        raise refused(done)
    document = _document(done)
    found: list[dict[str, Any]] = document.get("items", [document])
    return found


def delete(at: Place, kind: str, *names: str, wait: bool = False) -> None:
    """Delete objects; those that are gone already are no error. wait: until they are gone."""
    if names:
        run(
            at, "delete", kind, *names, "--ignore-not-found", f"--wait={str(wait).lower()}", limited=False, timeout=None
        )


def as_list(objects: Iterable[Object]) -> dict[str, Any]:
    """Objects as one document."""
    return {"apiVersion": "v1", "kind": "List", "items": [*objects]}


def _document(done: Completed) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise OpsError(f"The answer of `{brief(done.argv)}` is not what was expected: it is not JSON.") from None
    return found


# ── complaints ────────────────────────────────────────────────────────────────────────────────────────────────────────


def brief(argv: Sequence[str]) -> str:
    """A command line for messages, without the options that every one has."""
    words = [*argv]
    for option in ("--context", "--namespace"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    words = [each for each in words if not each.startswith("--request-timeout")]
    return " ".join(words[:4]) + (" …" if len(words) > 4 else "")


# What it complains of, what that means, and what to do. In both: context, namespace; said: its own words; and the named
# groups of the pattern.
_EXPLANATIONS = (
    (
        r"context .*does not exist|context was not found for specified context",
        'Your kubeconfig has no context "{context}".',
        "KUBE_CONTEXT must be one of: kubectl config get-contexts --output=name. Another file: KUBECONFIG=FILE",
    ),
    (
        r'namespaces "(?P<name>[^"]+)" not found',
        "There is no namespace {name} in the cluster of {context}.",
        "`invoke deploy` makes it, if you may; otherwise KUBE_NAMESPACE must be one that there is.",
    ),
    (
        r'Error from server \(Forbidden\): (?:.*?: )?(?P<what>\S+)(?: "[^"]*")? is forbidden: '
        r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+)',
        "{user} may not {verb} {what} in the namespace {namespace} of {context}.",
        "Ask whoever administers the cluster for the rights in docs/kubernetes.md, or use another KUBE_CONTEXT.",
    ),
    (
        r"You must be logged in to the server|\(Unauthorized\)|the server has asked for the client to pro",
        "The cluster of {context} does not accept your credentials.",
        "Log in again. To see who you are there: kubectl --context {context} auth whoami",
    ),
    (
        r"exec: executable .* not found|getting credentials: exec",
        "Your kubeconfig gets the credentials for {context} by a program that does not work here: {said}",
        "Install it, or log in again.",
    ),
    (
        r"x509: |tls: failed to verify certificate",
        "The certificate of the cluster of {context} is not trusted: {said}",
        "Get a new kubeconfig from whoever administers the cluster.",
    ),
    (
        r"connection refused|no such host|i/o timeout|Unable to connect to the server|was refused - did you specify"
        r"|no route to host|TLS handshake timeout|context deadline exceeded|Client\.Timeout exceeded"
        r"|ServiceUnavailable",
        "The cluster of {context} does not answer: {said}",
        "Check the network, a VPN, and: kubectl --context {context} version",
    ),
    (
        r"error loading config file|invalid configuration",
        "Your kubeconfig cannot be read: {said}",
        "Check KUBECONFIG, or ~/.kube/config.",
    ),
    (
        r'no matches for kind "(?P<kind>[^"]+)"',
        "The cluster of {context} does not know the kind {kind}.",
        "Install what provides it, such as the Gateway API (docs/kubernetes.md), or use a newer Kubernetes.",
    ),
)


def explain(at: Place, stderr: str) -> OpsError | None:
    """What a well-known complaint of kubectl means, and what to do about it."""
    for pattern, message, remedy in _EXPLANATIONS:
        if match := re.search(pattern, stderr):
            words = {"context": at.context, "namespace": at.namespace, "said": reason(stderr), **match.groupdict()}
            return OpsError(message.format_map(words), remedy.format_map(words), REFUSED)
    return None


# What kubectl and the API server say before what matters.
_PREAMBLE = re.compile(r"^(?:[Ee]rror(?: from server)?(?: \(\w+\))?: )+")


def refused(done: Completed) -> OpsError:
    """The error for objects that the API server does not take: a line for each."""
    lines = [_PREAMBLE.sub("", line.strip()) for line in done.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Warning:", "*"))] or ["no reason given"]
    return OpsError(
        "The cluster does not accept what is declared:\n" + "\n".join(f"  {line}" for line in lines[:20]),
        "Some fields cannot be changed in place, such as the size of a volume: change those with kubectl first.",
        FAILED,
    )


def failure(done: Completed) -> OpsError:
    """The error for a kubectl that exited non-zero."""
    said = _PREAMBLE.sub("", reason(done.stderr or done.stdout))
    return OpsError(f"`{brief(done.argv)}` failed (exit code {done.code}): {said}")
