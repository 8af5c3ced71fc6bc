"""Services that take requests, from the labels that a person wrote."""

from __future__ import annotations

import pytest

from ops.base.errors import USAGE, OpsError
from ops.stack import pools
from ops.stack.model import Stack
from ops.stack.pools import Pool


def stack(**services: dict) -> Stack:
    return Stack("acme-dev", {}, {"services": services, "networks": {"serving": {"name": "acme-dev_serving"}}})


def service(name: str, **labels: str) -> dict:
    """A service with such labels; "_" stands for "." in their names, and ops.port is there."""
    named = {f"ops.{key.replace('_', '.')}": value for key, value in labels.items()}
    return {"labels": {"ops.port": "8000", **named}, "networks": {"serving": {"aliases": [f"{name}.serving"]}}}


def test_all_that_can_be_said() -> None:
    shop = service(
        "shop", port="3000", ready="/up", route="/shop/", route_logins="^/shop/(login|join)$",
        route_uploads="/shop/files", host="shop.example.com", internal="true", affinity="cookie",
    )  # fmt: skip
    assert pools.declared(stack(shop=shop)) == {
        "shop": Pool(
            "shop", 3000, "/up", "/shop/", "^/shop/(login|join)$", "/shop/files", "shop.example.com", True, True
        )
    }


def test_what_is_usual() -> None:
    found = pools.declared(stack(web=service("web"), worker={"labels": {"ops.stateful": "x"}}, job={}))
    assert found == {"web": Pool("web", 8000, "healthcheck")}
    assert (found["web"].path, Pool("web", 80, "tcp").path, Pool("web", 80, "/up").path) == ("", "", "/up")
    assert found["web"].alias == "web.serving"


def test_the_network_has_the_name_that_the_engine_knows() -> None:
    assert pools.network(stack()) == "acme-dev_serving"
    assert pools.network(Stack("acme-dev", {}, {})) == ""


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"port": "http"}, 'label ops.port of web is "http"; it must be the number'),
        ({"port": "0"}, "ops.port"),
        ({"port": "65536"}, "ops.port"),
        ({"route": "shop"}, 'label ops.route of web is "shop"; it must be a path'),
        ({"route": "/a b"}, "ops.route"),
        ({"route": "/{"}, "ops.route"),
        ({"route": '/"; return 200'}, "ops.route"),
        ({"ready": "health"}, 'label ops.ready of web is "health"; it must be a path'),
        ({"route_logins": "/login"}, 'label ops.route.logins of web is "/login"; it must be a regular expression'),
        ({"route_logins": "^/(login"}, "it is no regular expression"),
        ({"route_logins": "^/a{2}"}, "ops.route.logins"),
        ({"route_uploads": "uploads"}, "ops.route.uploads"),
        ({"internal": "api.internal"}, 'label ops.internal of web is "api.internal"; it must be true, or not be there'),
        ({"host": "Shop.example.com"}, 'label ops.host of web is "Shop.example.com"; it must be a host name'),
        ({"host": "shop"}, "ops.host"),
        ({"host": "shop.example.com;"}, "ops.host"),
        ({"host": "*.example.com"}, "ops.host"),
        ({"route": "/errors/"}, 'label ops.route of web is "/errors/"; nginx answers /errors itself'),
        ({"route": "/health/live"}, "nginx answers /health itself"),
        ({"route": "/", "route_uploads": "/health"}, "nginx answers /health itself"),
        ({"route": "/files/", "route_uploads": "/files"}, "that is its ops.route already, so give a longer path"),
        ({"affinity": "yes"}, 'label ops.affinity of web is "yes"; it must be cookie'),
    ],
)
def test_a_label_that_cannot_be_meant(labels: dict[str, str], said: str) -> None:
    with pytest.raises(OpsError) as caught:
        pools.declared(stack(web=service("web", **labels)))
    assert said in caught.value.message
    assert caught.value.code == USAGE


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ({"route": "/shop"}, {"route": "/shop/"}, 'label ops.route of two is "/shop/"; one has the same one'),
        ({"host": "a.example"}, {"host": "a.example", "route": "/"}, "one has the same one on a.example"),
        ({"route": "/a", "route_uploads": "/b/"}, {"route": "/b"}, 'ops.route.uploads of one is "/b/"; two has'),
        ({"route": "/a", "route_uploads": "/u"}, {"route": "/b", "route_uploads": "/u"}, "one has the same one"),
    ],
)
def test_two_that_claim_the_same(one: dict[str, str], two: dict[str, str], said: str) -> None:
    with pytest.raises(OpsError, match="give one of them another") as caught:
        pools.declared(stack(one=service("one", **one), two=service("two", **two)))
    assert said in caught.value.message


def test_one_route_on_two_hosts_is_two() -> None:
    found = pools.declared(
        stack(
            one=service("one", route="/"),
            two=service("two", host="b.example"),
            three=service("three", host="a.example"),
        )
    )
    assert [pool.route for pool in found.values()] == ["/", "/", "/"]
    declared = stack(two=service("two", host="b.example"), three=service("three", host="a.example", route="/x"))
    assert pools.hosts(declared) == ["a.example", "b.example"]


@pytest.mark.parametrize("networks", [{}, {"serving": None}, {"serving": {"aliases": ["web"]}}])
def test_a_service_that_no_request_would_reach(networks: dict) -> None:
    with pytest.raises(OpsError, match=r"not the name web\.serving in the network serving") as caught:
        pools.declared(stack(web={**service("web"), "networks": networks}))
    assert caught.value.remedy == "Write, in its networks: serving: {aliases: [web.serving]}"
