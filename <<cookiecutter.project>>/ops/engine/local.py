"""Where the engine is. This stack mounts files of the project's folder, so both must be on one machine.

`docker` itself would take an engine elsewhere (DOCKER_HOST, contexts); the containers would then find other files, or
empty folders, in place of their configuration and secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ops.base.errors import REFUSED, OpsError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def endpoint(environment: Mapping[str, str]) -> str:
    """Where `docker` looks for the engine, such as unix:///run/docker.sock; "" for its default, or when unknown.

    The order is that of the Docker CLI: DOCKER_HOST, DOCKER_CONTEXT, the context in use.
    """
    if host := environment.get("DOCKER_HOST"):
        return host
    folder = Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME", "/")) / ".docker")
    context = environment.get("DOCKER_CONTEXT") or _text(folder / "config.json", "currentContext")
    if context in {"", "default"}:
        return ""
    name = hashlib.sha256(context.encode()).hexdigest()
    return _text(folder / "contexts" / "meta" / name / "meta.json", "Endpoints", "docker", "Host")


def _text(path: Path, *keys: str) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            found = found[key]
        return str(found)
    return ""


def is_remote(address: str) -> bool:
    """Whether an endpoint is on another machine."""
    parts = urlsplit(address)
    return parts.scheme in {"ssh", "tcp", "http", "https"} and parts.hostname not in _LOOPBACK


def require(environment: Mapping[str, str]) -> None:
    """Raise OpsError (REFUSED) when the engine is on another machine."""
    keys = ("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "HOME")
    address = _endpoint(tuple((key, environment[key]) for key in keys if key in environment))
    if is_remote(address):
        raise OpsError(
            f"The Docker engine is on another machine ({address}).",
            "The stack mounts files of this folder. Run the command on that machine, in a checkout there;"
            " or unset DOCKER_HOST and DOCKER_CONTEXT to use the engine of this one.",
            REFUSED,
        )


@cache
def _endpoint(items: tuple[tuple[str, str], ...]) -> str:
    return endpoint(dict(items))
