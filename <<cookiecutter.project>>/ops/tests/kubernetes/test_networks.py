"""Networks as policies."""

from __future__ import annotations

from typing import Any

import pytest

from ops.kubernetes import networks

DECLARED = {"backend": {}, "database": {"internal": True}}


def policies(**services: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = networks.policies(DECLARED, services, {"edge": [8443]})
    return {each["metadata"]["name"]: each["spec"] for each in found}


def test_nothing_may_be_reached_unless_a_network_says_so() -> None:
    found = policies(web={"networks": {"backend": None}})
    assert found["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {port["port"] for rule in found["dns"]["egress"] for port in rule["ports"]} == {53}


def test_only_networks_that_are_not_internal_have_a_way_out() -> None:
    found = policies(web={"networks": {"backend": None, "database": None}})
    assert [[*rule["to"][0]] for rule in found["network-database"]["egress"]] == [["podSelector"]]
    assert [[*rule["to"][0]] for rule in found["network-backend"]["egress"]] == [["podSelector"], ["ipBlock"]]


def test_the_credentials_of_a_cloud_are_out_of_reach() -> None:
    _, out = policies(web={"networks": {"backend": None}})["network-backend"]["egress"]
    assert {each["ipBlock"]["cidr"]: each["ipBlock"]["except"] for each in out["to"]} == {
        "0.0.0.0/0": ["169.254.169.254/32"],
        "::/0": ["fd00:ec2::254/128"],
    }


def test_a_published_port_is_open_to_everybody() -> None:
    edge = policies(edge={"networks": {"backend": None}})["public-edge"]
    assert edge["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8443}]}]


@pytest.mark.parametrize(
    ("variable", "value", "ports"),
    [
        ("DATABASE_HOSTS", "db.example.com:6432,other.example.com", [5432, 6432]),
        ("RABBITMQ_HOSTS", "queue.example.com", [5672]),
        ("DATABASE_HOSTS", "postgres-primary:5432", []),
        ("DATABASE_HOSTS", "", []),
    ],
)
def test_a_managed_service_outside_can_be_reached(variable: str, value: str, ports: list[int]) -> None:
    found = policies(job={"networks": {"database": None}, "environment": {variable: value}})
    opened = [port["port"] for rule in found.get("outside-job", {}).get("egress", []) for port in rule["ports"]]
    assert opened == ports
