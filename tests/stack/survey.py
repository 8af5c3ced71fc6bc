"""Who reaches whom in a running stack, tried from inside each container's network."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from tests import compose, connections
from tests.connections import Connection

from .project import Project, docker

PROBE = Path(__file__).with_name("probe_ports.py")
# Packets between networks are dropped, so no answer means unreachable; but a busy machine must not look like that.
SECONDS, PATIENT_SECONDS = 2.0, 15.0
PARALLEL = 4


@dataclass(frozen=True)
class Container:
    """A running container: its service, and its addresses by network."""

    id: str
    service: str
    addresses: tuple[str, ...]


def python_image(project: Project, environment: str) -> str:
    """The image that the services are built on: it is on the engine, and has what probes need."""
    return str(dotenv_values(project.env_file(environment))["PYTHON_IMAGE"])


def inside(image: str, container: str, *arguments: str, stdin: str = "", program: Path = PROBE) -> str:
    """Output of a Python program that runs in a container's network, as a user without any right."""
    argv = [
        *("docker", "run", "--rm", "--interactive", "--network", f"container:{container}", "--cap-drop", "ALL"),
        *("--user", "10001:10001", "--volume", f"{program}:/probe.py:ro", "--entrypoint", "python"),
        *(image, "/probe.py", *arguments),
    ]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


def running(project: Project, environment: str) -> list[Container]:
    """Every container of the stack that runs."""
    seen = json.loads(docker("inspect", *project.containers(environment)))
    return [
        Container(
            each["Id"],
            each["Config"]["Labels"]["com.docker.compose.service"],
            tuple(net["IPAddress"] for net in each["NetworkSettings"]["Networks"].values() if net["IPAddress"]),
        )
        for each in seen
        if each["State"]["Running"] and "com.docker.compose.service" in each["Config"]["Labels"]
    ]


def open_ports(image: str, container: Container) -> list[tuple[str, int]]:
    """(address, port) under which others might reach what listens in a container."""
    found = set()
    for address, port in json.loads(inside(image, container.id, "listening")):
        ip = ipaddress.ip_address(address)
        if ip.is_unspecified:
            found.update((own, port) for own in container.addresses)
        elif not ip.is_loopback:
            found.add((address, port))
    return sorted(found)


@dataclass(frozen=True)
class Survey:
    """What was found: ports by service, and every connection that could be made."""

    ports: dict[str, set[int]]
    made: frozenset[Connection]


def survey(project: Project, environment: str) -> Survey:
    """Try every port of every container from every other one."""
    image = python_image(project, environment)
    containers = running(project, environment)
    with ThreadPoolExecutor(PARALLEL) as pool:
        listed = dict(zip(containers, pool.map(lambda each: open_ports(image, each), containers), strict=True))
    owner = {address: each.service for each in containers for address in each.addresses}
    allowed = connections.load().allowed

    def attempt(source: Container) -> set[Connection]:
        targets = [target for each in containers if each.service != source.service for target in listed[each]]
        answered = json.loads(inside(image, source.id, "connect", str(SECONDS), stdin=json.dumps(targets)))
        made = {Connection(source.service, owner[address], port) for address, port in answered}
        # What should have been allowed, and was not within a short time, is asked again on a machine that may be busy.
        again = [
            [address, port]
            for address, port in targets
            if (wanted := Connection(source.service, owner[address], port)) in allowed and wanted not in made
        ]
        answered = json.loads(inside(image, source.id, "connect", str(PATIENT_SECONDS), stdin=json.dumps(again)))
        return made | {Connection(source.service, owner[address], port) for address, port in answered}

    with ThreadPoolExecutor(PARALLEL) as pool:
        made = frozenset().union(*pool.map(attempt, containers))
    ports: dict[str, set[int]] = {each.service: set() for each in containers}
    for container, found in listed.items():
        ports[container.service].update(port for _, port in found)
    return Survey(ports, made)


def expected(project: Project, environment: str, surveyed: Survey) -> frozenset[Connection]:
    """What the matrix allows in an environment as it is configured, of the ports that were found open."""
    services = compose.resolve(project.folder, environment, everything=False)["services"]
    matrix = connections.load()
    return frozenset(
        each
        for each in connections.possible(services, matrix) & matrix.allowed
        # what ran once is gone, and some ports are open in other environments only
        if each.source in surveyed.ports and each.port in surveyed.ports[each.target]
    )


def unknown_ports(surveyed: Survey) -> dict[str, set[int]]:
    """Open ports that the matrix does not name, by service."""
    listens = connections.load().listens
    unknown = {name: ports - listens.get(name, frozenset()) for name, ports in surveyed.ports.items()}
    return {name: ports for name, ports in unknown.items() if ports}
