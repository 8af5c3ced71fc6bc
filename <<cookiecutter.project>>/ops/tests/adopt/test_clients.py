"""Who uses a PostgreSQL outside of the stack, as the team's file lists them."""

from __future__ import annotations

from pathlib import Path

import yaml

from ops.adopt import clients

SHIPPED = (Path(__file__).parents[3] / clients.FILE).read_text(encoding="utf-8")
NONE = "x-client: &client\n  networks: {managed: }\n\nservices: {}\n"


def services(text: str) -> list[str]:
    return list(yaml.safe_load(text)["services"] or {})


def test_services_come_and_go() -> None:
    two = clients.put(NONE, ["shop", "shop-migrate"])
    assert services(two) == ["shop", "shop-migrate"]
    assert yaml.safe_load(two)["services"]["shop"] == {"networks": {"managed": None}}
    assert clients.put(two, ["shop"]) == two
    assert clients.remove(clients.remove(two, "shop"), "shop-migrate") == NONE


def test_the_file_of_the_template_can_be_edited() -> None:
    before = services(SHIPPED)
    assert services(clients.put(SHIPPED, ["shop"])) == ["shop", *before]
    assert clients.remove(clients.put(SHIPPED, ["shop"]), "shop") == SHIPPED


def test_one_that_is_written_in_another_way_is_left_alone() -> None:
    for text in ("services:\n  shop: {networks: {managed: }}\n", "", "x-client: &client {}\n"):
        assert clients.put(text, ["till"]) == text
        assert clients.remove(text, "till") == text
