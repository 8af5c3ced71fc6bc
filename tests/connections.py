"""The connection matrix (connections.yml): what it allows, and what the networks of a configuration make possible."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FILE = Path(__file__).with_name("connections.yml")


class Connection(NamedTuple):
    """From a service to a port of another."""

    source: str
    target: str
    port: int

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}:{self.port}"


@dataclass(frozen=True)
class Rule:
    """A line of the matrix, with its groups resolved into services."""

    connections: frozenset[Connection]
    reason: str
    line: str


@dataclass(frozen=True)
class Matrix:
    """The file's content. listens: ports by service. bound: the only network on which a service listens. bound_ports:
    the only network on which it listens with one port, unless that is published."""

    listens: Mapping[str, frozenset[int]]
    bound: Mapping[str, str]
    bound_ports: Mapping[str, Mapping[int, str]]
    groups: Mapping[str, frozenset[str]]
    needed: tuple[Rule, ...]
    shared: tuple[Rule, ...]

    @property
    def allowed(self) -> frozenset[Connection]:
        """Every connection that the matrix allows, in any environment."""
        return frozenset().union(*(rule.connections for rule in (*self.needed, *self.shared)))


@functools.cache
def load(file: Path = FILE) -> Matrix:
    """Read the matrix; a name that is neither a service with a port nor a group is an error."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    listens = {service: frozenset(ports) for service, ports in content["listens"].items()}
    groups = {name: frozenset(_members(name, content["groups"])) for name in content["groups"]}

    def rule(entry: Mapping[str, Any]) -> Rule:
        sources = {service for name in entry["from"] for service in groups.get(name, {name})}
        targets = {target for name in entry["to"] for target in _targets(name, groups, listens)}
        made = frozenset(Connection(a, b, port) for a in sources for b, port in targets if a != b)
        return Rule(made, entry["reason"], f"{', '.join(entry['from'])} -> {', '.join(entry['to'])}")

    return Matrix(
        listens,
        content["bound"],
        content["bound ports"],
        groups,
        tuple(rule(entry) for entry in content["needed"]),
        tuple(rule(entry) for entry in content["shared"]),
    )


def _members(name: str, groups: Mapping[str, list[str]]) -> Iterator[str]:
    for member in groups[name]:
        if member in groups:
            yield from _members(member, groups)
        else:
            yield member


def _targets(
    name: str, groups: Mapping[str, frozenset[str]], listens: Mapping[str, frozenset[int]]
) -> Iterator[tuple[str, int]]:
    """(service, port) of an entry NAME or NAME:PORT; a group's member that listens nowhere adds nothing."""
    name, _, port = name.partition(":")
    for service in groups.get(name, {name}):
        for each in listens[service] if name not in groups else listens.get(service, frozenset()):
            if not port or each == int(port):
                yield service, each


def possible(services: Mapping[str, Any], matrix: Matrix) -> frozenset[Connection]:
    """Every connection that the networks of these resolved services make possible."""
    networks = {name: set(service.get("networks") or {"default": None}) for name, service in services.items()}
    found = set()
    for target, ports in matrix.listens.items():
        if target not in services:
            continue
        published = {int(each["target"]) for each in services[target].get("ports") or ()}
        for port in ports:
            only = matrix.bound.get(target)
            if port not in published:
                only = matrix.bound_ports.get(target, {}).get(port, only)
            reachable_on = networks[target] & ({only} if only else networks[target])
            for source, joined in networks.items():
                if source != target and joined & reachable_on:
                    found.add(Connection(source, target, port))
    return frozenset(found)


def between(services: Mapping[str, Any], connections: frozenset[Connection]) -> frozenset[Connection]:
    """Those of `connections` whose both ends are among these services."""
    return frozenset(each for each in connections if each.source in services and each.target in services)
