"""What a finished command answered, and what its complaints mean."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ops.base.errors import FAILED, REFUSED, OpsError


class TimedOut(OpsError):
    """A command gave no answer in time."""


@dataclass(frozen=True)
class Completed:
    """A finished command."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def json(self) -> Any:
        """Standard output as JSON: one document, or a list of one a line (as `docker ps --format json` prints).

        Raises OpsError when it is not JSON.
        """
        text = self.stdout.strip()
        if not text:
            return []
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            with suppress(json.JSONDecodeError):
                return [json.loads(line) for line in text.splitlines()]
        raise OpsError(
            f"The answer of `{brief(self.argv)}` is not what was expected: it is cut off or not JSON.",
            "Check whether the engine is well: docker info.",
        )


def brief(argv: Sequence[str]) -> str:
    """A command line for messages, without the options that every Compose command has."""
    words = list(argv)
    for option in ("--project-directory", "--env-file", "--file", "--profile"):
        if option in words:
            place = words.index(option)
            del words[place : place + 2]
    return " ".join(words[:6]) + (" …" if len(words) > 6 else "")


_EXPLANATIONS = (
    (
        r"permission denied while trying to connect",
        "You do not have permission to use the Docker engine.",
        "Join the group that owns its socket (sudo usermod -aG docker $USER, then log in again), or use sudo.",
        REFUSED,
    ),
    (
        r"context \S+ not found|context not found",
        "The Docker context that DOCKER_CONTEXT or `docker context use` names does not exist.",
        "List them with `docker context ls`; unset DOCKER_CONTEXT, or run `docker context use default`.",
        REFUSED,
    ),
    (
        r"unable to (?:resolve docker endpoint|read (?:CA|client|TLS))|could not read (?:CA certificate|X509 key pair)",
        "The TLS files for the Docker engine cannot be read.",
        "Check DOCKER_CERT_PATH and DOCKER_TLS_VERIFY, or unset DOCKER_HOST to use the engine of this machine.",
        REFUSED,
    ),
    (
        r"Cannot connect to the Docker daemon|error during connect|docker\.sock: connect|daemon running\?"
        r"|unable to parse docker host",
        "The Docker engine does not answer.",
        "Start it (sudo systemctl start docker), or check DOCKER_HOST and `docker context ls`.",
        REFUSED,
    ),
    (
        # Without the plugin, docker itself reads the options that are meant for `docker compose`, and knows none.
        r"is not a docker command|unknown (?:shorthand )?(?:flag|command).*compose"
        r"|unknown flag: --(?:project-directory|env-file|file|profile)\b",
        "Docker Compose is not installed.",
        "Install the Compose plugin, 2.32 or newer: https://docs.docker.com/compose/install/",
        REFUSED,
    ),
    (
        r"does not match the (?:specified|detected host) platform|no match for platform"
        r"|does not provide the specified platform",
        "An image on this machine is for another processor than DOCKER_DEFAULT_PLATFORM, or this machine, asks for.",
        "Unset DOCKER_DEFAULT_PLATFORM, or pull the image for that platform.",
        REFUSED,
    ),
    (
        r"all predefined address pools have been fully subnetted"
        r"|could not find an available,? non-overlapping IPv4 address",
        "The Docker engine has no address range left for another network.",
        "Remove networks that nothing uses (docker network prune), or give the engine more ranges:"
        " default-address-pools in /etc/docker/daemon.json.",
        FAILED,
    ),
    (
        r"no space left on device",
        "The disk is full.",
        "Free some space: see `docker system df`, then run `docker image prune`.",
        FAILED,
    ),
)


def explain(stderr: str) -> OpsError | None:
    """What a well-known complaint of docker means, and what to do about it."""
    for pattern, message, remedy, code in _EXPLANATIONS:
        if re.search(pattern, stderr):
            return OpsError(message, remedy, code)
    return None


def reason(text: str, default: str = "it gave no reason") -> str:
    """The line of a command's output that says why it failed: the last one that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error response from daemon: ") if lines else default


def failure(done: Completed) -> OpsError:
    """The error for a command that exited non-zero."""
    if known := explain(done.stderr):
        return known
    return OpsError(f"`{brief(done.argv)}` failed (exit code {done.code}): {reason(done.stderr or done.stdout)}")
