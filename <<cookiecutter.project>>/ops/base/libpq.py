"""Addresses and connection strings, as libpq reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def addresses(text: str, port: str) -> tuple[str, ...]:
    """HOST:PORT of each host in a list with commas. port: of those that name none."""
    hosts = (each.strip() for each in text.split(","))
    return tuple(each if ":" in each else f"{each}:{port}" for each in hosts if each)


def conninfo(hosts: Sequence[str], parts: Mapping[str, str]) -> str:
    """A connection string. hosts: HOST:PORT, which are tried in turn; parts: as they are written into it."""
    places = [each.rpartition(":") for each in hosts]
    servers = {"host": ",".join(host for host, _, _ in places), "port": ",".join(port for _, _, port in places)}
    return " ".join(f"{key}={value}" for key, value in {**servers, **parts}.items())


def quoted(text: str) -> str:
    """A value of a connection string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
