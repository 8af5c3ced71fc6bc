"""Which containers get requests, in words."""

from __future__ import annotations

import pytest

from ops.commands import status
from ops.parts.haproxy import health, pool
from ops.parts.haproxy.pool import Server
from ops.rollout.observe import Glance
from ops.stack.model import Stack

UP = Server("web", "s1", "10.9.0.2", "UP", "L7OK", open=2)
TWO = {"10.9.0.2": "web-1", "10.9.0.3": "web-2"}


def other(state: str, check: str = "", code: str = "", ejections: int = 0) -> Server:
    return Server("web", "s2", "10.9.0.3", state, check, code, ejections=ejections)


def test_all_get_requests() -> None:
    found = health.judge([UP, other("UP", "L7OK")], "web", TWO)
    assert (found.status, found.detail) == ("ok", "2 of 2 get requests, 2 open now")


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (other("DOWN", "L7OK", "200", 1), "web-2 is taken out: it answers errors although its health check is fine"),
        (other("DOWN", "L7STS", "503"), "web-2 is not ready (L7STS 503)"),
        (other("DOWN", "L4CON"), "web-2 is not ready (L4CON)"),
        (other("DRAIN"), "web-2 was taken out by a rollout that was interrupted; the next deploy takes it back"),
        (other("MAINT"), "web-2 is MAINT"),
    ],
)
def test_one_that_gets_none_is_named_with_its_reason(server: Server, reason: str) -> None:
    found = health.judge([UP, server], "web", TWO)
    assert (found.status, found.detail) == ("warn", f"1 of 2 get requests, 2 open now; {reason}")


def test_one_that_haproxy_does_not_see() -> None:
    assert health.judge([UP], "web", TWO).detail.endswith("; web-2 is not seen")
    assert health.judge([UP], "web", {**{"10.9.0.2": "web-1"}, "": "web-2"}).detail.endswith("; web-2 is not seen")


def test_one_that_is_ready_again_is_no_worry() -> None:
    found = health.judge([UP, other("DOWN", "L7OK", "200")], "web", TWO)
    assert (found.status, found.detail.partition("; ")[2]) == (
        "ok",
        "web-2 is ready, and will be chosen in a few seconds",
    )


@pytest.mark.parametrize(
    ("check", "ejections", "status"),
    [("L7STS", 0, "fail"), ("L4CON", 0, "fail"), ("L7OK", 1, "warn"), ("L7OK", 0, "ok")],
)
def test_where_none_is_chosen_their_checks_decide(check: str, ejections: int, status: str) -> None:
    """Each gets requests then."""
    only = other("DOWN", check, ejections=ejections)
    found = health.judge([only], "web", {"10.9.0.3": "web-2"})
    assert found.status == status
    assert found.detail.startswith("none is chosen, so each gets requests, 0 open now; web-2 is ")


def test_status_names_those_that_get_no_requests(make_container, monkeypatch) -> None:
    web = [make_container("web", n, addresses={"acme_serving": f"10.9.0.{n + 1}"}) for n in (1, 2)]
    declared = Stack("acme-dev", {}, {"networks": {"serving": {"name": "acme_serving"}}})
    seen = Glance(declared, [*web, make_container("haproxy")])
    any_of = Server("web:any", "s1", "10.9.0.2", "no")
    monkeypatch.setattr(pool, "servers", lambda _haproxy: [UP, any_of, other("DOWN", "L7OK", ejections=1)])
    assert status.out_of_pool(seen) == ["web-2 is taken out: it answers errors although its health check is fine"]
    assert status.out_of_pool(Glance(declared, web)) == []
