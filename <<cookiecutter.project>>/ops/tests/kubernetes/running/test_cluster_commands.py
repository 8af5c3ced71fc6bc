"""Which command does what in a cluster."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.base.errors import USAGE, OpsError
from ops.kubernetes import commands, inside, logs, rollback
from ops.stack import model
from ops.stack.model import Stack
from ops.state.releases import Release

TASKS = Path(__file__).resolve().parents[4] / "tasks.py"
Make = Callable[..., dict[str, Any]]


def test_every_command_has_its_place() -> None:
    """A new one must say what it does in a cluster."""
    found = re.findall(r"^@command\(.*?^def (\w+)\(", TASKS.read_text(), re.MULTILINE | re.DOTALL)
    tasks = {name.replace("_", "-") for name in found}
    placed = [*commands.OTHERWISE, *commands.REFUSED, *commands.ALIKE]
    assert len(tasks) > 20 and tasks <= {*placed}
    assert len(placed) == len({*placed})


@pytest.mark.parametrize("name", sorted(commands.REFUSED))
def test_what_makes_no_sense_is_refused_with_what_to_do(env, name: str) -> None:
    with pytest.raises(OpsError, match=f"`invoke {name}` is not for dev, which runs on Kubernetes") as caught:
        commands.perform(env, name, {}, [])
    assert caught.value.code == USAGE and caught.value.remedy


def test_a_command_that_is_the_same_everywhere_is_left_to_itself(env) -> None:
    assert commands.perform(env, "releases", {}, []) is None


def test_a_canary_is_refused(env) -> None:
    with pytest.raises(OpsError, match="canary"):
        commands.perform(env, "deploy", {"canary": "10", "minutes": "", "promote": False, "abort": False}, [])


# ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def template(deployment: Make) -> dict[str, Any]:
    found = deployment()["spec"]["template"]
    found["metadata"]["labels"] |= {"network.stack/database": "true"}
    found["spec"] |= {"affinity": {}, "terminationGracePeriodSeconds": 30}
    found["spec"]["containers"][0] |= {"readinessProbe": {}, "ports": [], "command": ["/entry"], "args": ["serve"]}
    return found


def test_a_one_off_pod_has_the_networks_and_none_of_the_names(env, template: dict[str, Any]) -> None:
    made = inside.manifest(env, "web", template, ["python", "-V"], True, False)
    labels = made["metadata"]["labels"]
    # What no Service selects gets no requests.
    assert "app.kubernetes.io/name" not in labels
    assert labels["network.stack/database"] == "true" and labels["stack/one-off"] == "web"
    (main,) = made["spec"]["containers"]
    assert (main["command"], main["args"]) == (["/entry"], ["python", "-V"])
    assert "readinessProbe" not in main and "affinity" not in made["spec"]
    assert made["spec"]["restartPolicy"] == "Never" and made["spec"]["terminationGracePeriodSeconds"] == 30


def test_without_the_entrypoint_the_command_is_all(env, template: dict[str, Any]) -> None:
    (main,) = inside.manifest(env, "web", template, ["sh", "-c", "true"], False, True)["spec"]["containers"]
    assert (main["command"], main["args"], main["tty"]) == (["sh"], ["-c", "true"], True)


def test_without_a_command_it_does_what_the_service_does(env, template: dict[str, Any]) -> None:
    (main,) = inside.manifest(env, "web", template, [], True, False)["spec"]["containers"]
    assert (main["command"], main["args"]) == (["/entry"], ["serve"])


# ── rollback ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_own_services_are_as_then_and_as_many_as_now(stack: Stack) -> None:
    then = {
        "name": "acme-dev",
        "services": {
            "web": {
                **stack.document["services"]["web"],
                "build": {"context": "x"},
                "environment": {"A": "old"},
                "deploy": {"replicas": 7},
            },
            "postgres-primary": {**stack.document["services"]["postgres-primary"], "image": "postgres:17"},
        },
    }
    release = Release(3, 0, "ann", "", "deploy", images={"web": "acme/web:0f0f"})
    found = rollback.as_then(stack, then, release)
    web = found.document["services"]["web"]
    assert (web["image"], web["environment"], found.services["web"].replicas) == ("acme/web:0f0f", {"A": "old"}, 2)
    assert "build" not in web
    # Nobody goes back to an older database server by it.
    assert found.services["postgres-primary"].image == "postgres:18"
    assert model.parse(found.document) == found


# ── logs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tail", "since", "options"),
    [
        ("100", "", ["--timestamps", "--tail=100"]),
        ("all", "10m", ["--timestamps", "--tail=-1", "--since=10m"]),
        ("5", "2026-01-31T12:00:00+00:00", ["--timestamps", "--tail=5", "--since-time=2026-01-31T12:00:00+00:00"]),
    ],
)
def test_options_of_logs(monkeypatch: pytest.MonkeyPatch, tail: str, since: str, options: list[str]) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert logs.options_of(tail=tail, since=since) == options


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(OpsError, match="neither a duration nor a time"):
        logs.options_of(tail="1", since="yesterday")
