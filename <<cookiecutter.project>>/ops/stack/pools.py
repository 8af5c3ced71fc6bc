"""Services that take requests through the edge, as their labels declare them: HAProxy's pools and nginx's routes.

What is known of such a service stands beside it in the Compose file and nowhere else; docs/architecture.md has the
table of labels. A service with the label `ops.port` has a pool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ops.base.errors import USAGE, OpsError
from ops.engine import Container
from ops.stack import labels
from ops.stack.model import Stack

# The network of the containers that get requests, as the Compose files call it.
NETWORK = "serving"
# How long nginx keeps an idle connection to HAProxy. A new one costs nothing on one machine; an old one may lead to a
# process of HAProxy that a reload has replaced.
IDLE_SECONDS = 5
# Ready without a path: it takes connections, or its health check of Compose says so.
TCP, HEALTHCHECK = "tcp", "healthcheck"

_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
# What becomes part of nginx's configuration: a regular expression of plain characters, never a brace, quote or space.
_READY = re.compile(rf"{_PATH.pattern}|{TCP}|{HEALTHCHECK}")
_PATTERN = re.compile(r"\^/[A-Za-z0-9._~/()|\\^$*+?\[\]-]*")
# What public paths begin with that nginx answers itself (infrastructure/nginx: errors.conf, public.conf).
_OURS = frozenset({"errors", "health"})
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})+")


@dataclass(frozen=True)
class Pool:
    """The containers of a service that take requests. port: where they listen; ready: what says that one can take
    requests: the path that answers 200 then, TCP or HEALTHCHECK; route: the public path prefix ("": none); logins: a
    pattern of paths with the stricter rate limit; uploads: a path prefix with large bodies; host: the host name that
    its route is on ("": the domain); internal: whether other services call it; affinity: whether a visitor stays with a
    container.
    """

    service: str
    port: int
    ready: str = HEALTHCHECK
    route: str = ""
    logins: str = ""
    uploads: str = ""
    host: str = ""
    internal: bool = False
    affinity: bool = False

    @property
    def path(self) -> str:
        """The path of its readiness check; "" when it is no path."""
        return self.ready if self.ready.startswith("/") else ""

    @property
    def alias(self) -> str:
        """The name in the network `serving` that leads to its containers."""
        return alias(self.service)


def alias(service: str) -> str:
    """The name in the network `serving` that leads to the containers of a service."""
    return f"{service}.{NETWORK}"


def canary(service: str) -> str:
    """The name in the network `serving` of the containers that get a share of the requests, for a trial."""
    return f"{service}.canary"


def on_trial(container: Container, network: str) -> bool:
    """Whether a container is one of a canary. network: the name on the engine of the network `serving`."""
    return canary(container.service) in container.aliases.get(network, ())


def declared(stack: Stack) -> dict[str, Pool]:
    """Pools by service. Raises OpsError (USAGE) for labels that cannot be meant, and for two that claim the same."""
    entries: Mapping[str, Any] = stack.document.get("services") or {}
    pools = {name: _pool(name, entry) for name, entry in entries.items() if labels.PORT in (entry.get("labels") or {})}
    claimed: dict[tuple[str, str], str] = {}
    # Routes first: whoever has one was there before another's uploads.
    wanted = [(name, pool.host, labels.ROUTE, pool.route) for name, pool in pools.items()]
    wanted += [(name, pool.host, labels.UPLOADS, pool.uploads) for name, pool in pools.items()]
    for name, host, label, path in wanted:
        if path:
            _claim(claimed, name, host, label, path)
    return pools


def _claim(claimed: dict[tuple[str, str], str], name: str, host: str, label: str, path: str) -> None:
    """Note who has a public path. Raises OpsError for one that somebody has already: nginx takes each once."""
    if (first := path.strip("/").partition("/")[0]) in _OURS:
        raise _wrong(name, label, path, f"nginx answers /{first} itself, so choose another path")
    # /shop and /shop/ are one route.
    key = (host, path.rstrip("/"))
    other = claimed.get(key)
    if other == name:
        raise _wrong(name, label, path, f"that is its {labels.ROUTE} already, so give a longer path")
    if other:
        where = f"{other} has the same one on {host}" if host else f"{other} has the same one"
        raise _wrong(name, label, path, f"{where}, so give one of them another")
    claimed[key] = name


def hosts(stack: Stack) -> list[str]:
    """The host names that services have of their own, beside the domain."""
    return sorted({pool.host for pool in declared(stack).values() if pool.host})


def network(stack: Stack) -> str:
    """The name on the engine of the network `serving`; "" when none is declared."""
    found: Mapping[str, Any] = (stack.document.get("networks") or {}).get(NETWORK) or {}
    return str(found.get("name", ""))


def _pool(name: str, entry: Mapping[str, Any]) -> Pool:
    said: Mapping[str, str] = {key: str(value) for key, value in entry["labels"].items()}

    def value(label: str, pattern: re.Pattern[str], form: str, default: str = "") -> str:
        text = said.get(label, default).strip()
        if text and not pattern.fullmatch(text):
            raise _wrong(name, label, text, f"it must be {form}")
        return text

    port = said[labels.PORT].strip()
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _wrong(name, labels.PORT, port, "it must be the number of the port that the service listens on")
    for label, only in ((labels.AFFINITY, "cookie"), (labels.INTERNAL, "true")):
        if (text := said.get(label, "").strip()) not in {"", only}:
            raise _wrong(name, label, text, f"it must be {only}, or not be there")
    logins = value(labels.LOGINS, _PATTERN, "a regular expression that starts with ^/, such as ^/(login|join)$")
    try:
        re.compile(logins)
    except re.error as error:
        raise _wrong(name, labels.LOGINS, logins, f"it is no regular expression: {error}") from None
    host = value(labels.HOST, _HOST, "a host name in lower case, such as shop.example.com")
    joined: Mapping[str, Any] = entry.get("networks") or {}
    if alias(name) not in ((joined.get(NETWORK) or {}).get("aliases") or ()):
        raise OpsError(
            f"The Compose files: {name} has the label {labels.PORT}, but not the name {alias(name)} in the network"
            f" {NETWORK}, so no request would reach it.",
            f"Write, in its networks: {NETWORK}: {{aliases: [{alias(name)}]}}",
            USAGE,
        )
    return Pool(
        name,
        int(port),
        value(labels.READY, _READY, "a path, such as /health/ready, or tcp, or healthcheck", HEALTHCHECK),
        value(labels.ROUTE, _PATH, "a path, such as / or /shop/", "/" if host else ""),
        logins,
        value(labels.UPLOADS, _PATH, "a path, such as /uploads"),
        host,
        bool(said.get(labels.INTERNAL, "").strip()),
        bool(said.get(labels.AFFINITY, "").strip()),
    )


def _wrong(service: str, label: str, value: str, why: str) -> OpsError:
    return OpsError(f'The Compose files: label {label} of {service} is "{value}"; {why}.', "Correct it.", USAGE)
