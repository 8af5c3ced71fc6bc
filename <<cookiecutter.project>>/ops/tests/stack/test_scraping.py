"""Where the metrics of services are, as their labels say."""

from __future__ import annotations

import pytest

from ops.base.errors import USAGE, OpsError
from ops.stack import scraping
from ops.stack.model import Service, Stack
from ops.stack.scraping import Target


def stack(**labels: str) -> Stack:
    """A stack with the service shop in the network `scrape`, and one without metrics."""
    entry = {"labels": labels, "networks": {"scrape": None}}
    services = {name: Service(name, "acme/shop:1", replicas=3) for name in ("shop", "quiet")}
    return Stack("acme-dev", services, {"services": {"shop": entry, "quiet": {}}})


@pytest.mark.parametrize(
    ("labels", "port", "path"),
    [
        ({"ops.metrics": "/metrics", "ops.port": "3000"}, 3000, "/metrics"),
        ({"ops.metrics": "9100/metrics", "ops.port": "3000"}, 9100, "/metrics"),
        ({"ops.metrics": "9100/"}, 9100, "/"),
    ],
)
def test_a_label_says_where_the_page_is(labels: dict[str, str], port: int, path: str) -> None:
    assert scraping.declared(stack(**labels)) == {"shop": Target("shop", port, path, 3)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metrics", "it must be a path, such as /metrics, or a port and a path"),
        ("0/metrics", "it must be a path"),
        ("70000/metrics", "it must be a path"),
        ("9100", "it must be a path"),
        ("/met rics", "it must be a path"),
        ("/metrics", "shop has no ops.port, so write the port before the path, such as 9100/metrics"),
    ],
)
def test_a_label_that_does_not_parse_is_refused(text: str, words: str) -> None:
    with pytest.raises(OpsError, match=f'label ops.metrics of shop is "{text}"; {words}') as raised:
        scraping.declared(stack(**{"ops.metrics": text}))
    assert raised.value.code == USAGE


def test_who_cannot_be_reached_is_refused() -> None:
    found = stack(**{"ops.metrics": "9100/metrics"})
    found.document["services"]["shop"]["networks"] = {"backend": None}
    with pytest.raises(OpsError, match="shop has the label ops.metrics, but is not in the network scrape") as raised:
        scraping.declared(found)
    assert raised.value.remedy.startswith("Add scrape to its networks")
