"""What the docker client cannot say or do in one word: copies of containers, and what a container has used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

SOCKET = "/var/run/docker.sock"


def ask(method: str, path: str, body: object = None) -> Any:
    """One request to the engine's API; what came back. Raises AssertionError with the engine's own words."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=SOCKET), base_url="http://engine", timeout=120) as client:
        answer = client.request(method, path, json=body)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json() if answer.content else None


def copy(container: str, name: str, networks: set[str], environ: Mapping[str, str]) -> str:
    """Create a container like another one, as `docker run` with the same options would: its id.

    It has no labels and none of the other one's names on its networks. networks: those of the other one that it joins;
    environ: variables that differ.
    """
    found = ask("GET", f"/containers/{container}/json")
    variables = {**dict(line.split("=", 1) for line in found["Config"]["Env"]), **environ}
    configuration = {
        **found["Config"],
        "Hostname": "",
        "Image": found["Image"],
        "Labels": {},
        "Env": [f"{key}={value}" for key, value in variables.items()],
    }
    joined = [each for each in found["NetworkSettings"]["Networks"] if each in networks]
    body = {
        **configuration,
        "HostConfig": {**found["HostConfig"], "NetworkMode": joined[0], "PortBindings": {}},
        "NetworkingConfig": {"EndpointsConfig": {each: {} for each in joined}},
    }
    return str(ask("POST", f"/containers/create?name={name}", body)["Id"])


@dataclass(frozen=True)
class Usage:
    """What a container has used. processor: seconds since it started; memory: MiB now, without files in the cache."""

    processor: float
    memory: float


def usage(container: str) -> Usage:
    """From the container's control group, as the engine reads it."""
    found = ask("GET", f"/containers/{container}/stats?stream=false&one-shot=true")
    memory = found["memory_stats"]
    cache = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    return Usage(found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, (memory["usage"] - cache) / 2**20)


def address(container: str, network: str = "") -> str:
    """An address of a container, on this network or on any."""
    networks = ask("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]
    found = [each["IPAddress"] for name, each in networks.items() if each["IPAddress"] and network in ("", name)]
    assert found, f"{container} has no address{f' on {network}' if network else ''}"
    return str(found[0])


def running_pid(container: str) -> int:
    """The process on this machine that is the container's first."""
    return int(ask("GET", f"/containers/{container}/json")["State"]["Pid"])
