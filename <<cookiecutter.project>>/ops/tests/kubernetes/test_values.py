"""Names, times, amounts and text."""

from __future__ import annotations

import pytest

from ops.kubernetes import values


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("POSTGRES_PASSWORD", "postgres-password"),
        ("rabbitmq_definitions.json", "rabbitmq-definitions-json"),
        ("a", "a"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert values.object_name(text) == name


@pytest.mark.parametrize(
    ("resolved", "written"),
    [
        # what a container gets on one host, and how it has to be written for a pod to get the same
        ("plain", "plain"),
        ("$${HOME}", "${HOME}"),
        ("$$(date)", "$$(date)"),
        ("kill $$$$", "kill $$$"),
        ("$$$$(X)", "$$$$(X)"),
        ("costs 5 $$", "costs 5 $"),
    ],
)
def test_text_with_dollar_signs(resolved: str, written: str) -> None:
    assert values.literal(resolved) == written
    assert expanded(written) == values.plain(resolved)


def expanded(text: str) -> str:
    """As Kubernetes expands it: k8s.io/kubernetes/third_party/forked/golang/expansion, without a variable defined."""
    found, position = "", 0
    while position < len(text):
        if text[position : position + 2] == "$$":
            found, position = found + "$", position + 2
        else:
            assert not text.startswith("$(", position), "a variable would be put in"
            found, position = found + text[position], position + 1
    return found


@pytest.mark.parametrize(
    ("size", "written"), [("64m", "64Mi"), ("1g", "1Gi"), (402653184, "384Mi"), ("512kb", "512Ki"), ("1000", "1000")]
)
def test_sizes(size: str | int, written: str) -> None:
    assert values.quantity(values.amount(size)) == written


@pytest.mark.parametrize(("count", "written"), [(2, "2"), ("0.5", "500m"), (1.25, "1250m")])
def test_processors(count: float, written: str) -> None:
    assert values.cpus(count) == written


@pytest.mark.parametrize(("text", "seconds"), [("1m15s", 75), ("10s", 10), ("500ms", 1)])
def test_times(text: str, seconds: int) -> None:
    assert values.whole_seconds(text) == seconds
