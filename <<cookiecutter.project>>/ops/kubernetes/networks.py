"""Networks as policies: pods that share a network may talk, all others may not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ops.kubernetes.values import NAME, Manifest, made, object_name
from ops.stack import contract

# Label of a pod that is on a network.
PREFIX = "network.stack/"
_DNS = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
# Where a node's own DNS cache listens, in clusters that have one.
_LOCAL_DNS = "169.254.20.10/32"
# Where clouds keep the credentials of their machines.
_METADATA = {"0.0.0.0/0": "169.254.169.254/32", "::/0": "fd00:ec2::254/128"}


def joined(entry: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a service's pods for its networks."""
    return {f"{PREFIX}{object_name(network)}": "true" for network in entry.get("networks") or {}}


def policies(
    declared: Mapping[str, Mapping[str, Any]],
    services: Mapping[str, Mapping[str, Any]],
    public: Mapping[str, list[int]],
) -> Iterator[Manifest]:
    """The policies of a namespace.

    declared: networks of the Compose files; services: those that are exported; public: ports that anybody may reach, by
    service.
    """
    yield _policy("default-deny", {}, ["Ingress", "Egress"])
    dns = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
        {"ipBlock": {"cidr": _LOCAL_DNS}},
    ]
    yield _policy("dns", {}, ["Egress"], egress=[{"to": dns, "ports": _DNS}])
    for network in sorted({network for entry in services.values() for network in entry.get("networks") or {}}):
        member = {"matchLabels": {f"{PREFIX}{object_name(network)}": "true"}}
        out: list[Manifest] = [{"to": [{"podSelector": member}]}]
        if not (declared.get(network) or {}).get("internal"):
            out.append({"to": _anywhere()})
        yield _policy(
            f"network-{object_name(network)}",
            member,
            ["Ingress", "Egress"],
            ingress=[{"from": [{"podSelector": member}]}],
            egress=out,
        )
    for name, entry in sorted(services.items()):
        if outside := _outside(entry):
            yield _policy(
                f"outside-{name}",
                {"matchLabels": {NAME: name}},
                ["Egress"],
                egress=[{"to": _anywhere(), "ports": [{"protocol": "TCP", "port": port} for port in outside]}],
            )
    for name, ports in sorted(public.items()):
        opened = [{"protocol": "TCP", "port": port} for port in ports]
        yield _policy(f"public-{name}", {"matchLabels": {NAME: name}}, ["Ingress"], ingress=[{"ports": opened}])


def _anywhere() -> list[Manifest]:
    return [{"ipBlock": {"cidr": cidr, "except": [but]}} for cidr, but in _METADATA.items()]


def _outside(entry: Mapping[str, Any]) -> list[int]:
    """Ports of what a service uses of the data tier on other machines, whose names have a dot: a managed database is
    reached although the network of those here has no way out."""
    found = set()
    for variable, usual in contract.ADDRESSES.items():
        for each in str((entry.get("environment") or {}).get(variable) or "").split(","):
            host, _, port = each.strip().partition(":")
            if "." in host:
                found.add(int(port) if port.isdigit() else usual)
    return sorted(found)


def aliases(entry: Mapping[str, Any]) -> Iterator[str]:
    """Every further name of a service in its networks."""
    for joined_as in (entry.get("networks") or {}).values():
        yield from (joined_as or {}).get("aliases") or ()


def _policy(name: str, selector: Mapping[str, Any], types: Iterable[str], **rules: Any) -> Manifest:
    return made("NetworkPolicy", name, spec={"podSelector": dict(selector), "policyTypes": list(types), **rules})
