"""Secrets are rotated while the stack runs: whatever happened to the files before, and wherever it is killed."""

from __future__ import annotations

import json
import signal

import pytest

from .project import Project, docker
from .rotations import Stack

_STRIPE = """\
services:
  web:
    secrets: [STRIPE_KEY]
secrets:
  STRIPE_KEY: {file: "./config/${ENVIRONMENT}/secrets/STRIPE_KEY"}
"""
NAMES = ("API_DB_PASSWORD", "REDIS_PASSWORD", "API_RABBITMQ_PASSWORD")


@pytest.fixture(scope="module")
def stack(dev_stack: Project) -> Stack:
    return Stack(dev_stack, "dev")


def left_behind(stack: Stack) -> list[str]:
    folder = stack.project.folder / "config/dev/secrets"
    return [path.name for path in folder.iterdir() if path.name.endswith((".next", ".previous"))]


def serves(stack: Stack) -> bool:
    """Whether somebody can log in and write, and a deploy has nothing to do."""
    with stack.project.client() as client:
        stack.project.sign_in(client, "rotation@example.com")
        assert client.post("/api/v1/items", json={"title": "after a rotation"}).status_code == 201
    return json.loads(stack.project.invoke("deploy", "--plan", "--json").stdout)["idle"]


def test_the_old_values_are_refused_and_nothing_restarts(stack: Stack) -> None:
    kept = ("postgres-primary", "postgres-replica", "redis-primary", "redis-replica", "rabbitmq", "nginx", "web")
    before = {name: stack.secret(name) for name in NAMES}
    containers = stack.containers(*kept)
    said = stack.project.invoke("secret-rotate", ",".join(NAMES), "--yes")
    for name, old in before.items():
        new = stack.secret(name)
        assert new not in said.stdout + said.stderr
        assert (stack.accepts(name, new), stack.accepts(name, old)) == (True, False), name
    assert stack.containers(*kept) == containers
    assert left_behind(stack) == []
    assert serves(stack)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param("letting both passwords in", marks=pytest.mark.fault),
        "changing the passwords",
        pytest.param("starting beside", marks=pytest.mark.fault),
        pytest.param("draining", marks=pytest.mark.fault),
    ],
)
def test_the_same_command_finishes_one_that_was_killed(stack: Stack, at: str) -> None:
    old = {name: stack.secret(name) for name in NAMES[:2]}
    command = ("secret-rotate", ",".join(old), "--yes")
    code, _ = stack.project.interrupted(*command, at=at, after=0.3, how=signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert left_behind(stack)
    assert serves_meanwhile(stack)
    assert "invoke secret-rotate API_DB_PASSWORD --env dev" in stack.project.invoke("doctor", code=1).stdout
    stack.project.invoke(*command)
    for name, value in old.items():
        assert (stack.accepts(name, stack.secret(name)), stack.accepts(name, value)) == (True, False), name
    assert left_behind(stack) == []
    assert serves(stack)


def serves_meanwhile(stack: Stack) -> bool:
    with stack.project.client() as client:
        stack.project.sign_in(client, "rotation@example.com")
        return client.post("/api/v1/items", json={"title": "half-way"}).status_code == 201


@pytest.mark.fault
def test_files_that_somebody_replaced_by_hand(stack: Stack) -> None:
    """What the tool itself once advised: the parts still have the old password, and the files another one."""
    old = {name: stack.secret(name) for name in NAMES}
    for name in NAMES:
        (stack.project.folder / "config/dev/secrets" / name).unlink()
    stack.project.invoke("secret-init")
    said = stack.project.invoke("secret-rotate", ",".join(NAMES), "--yes")
    assert "invoke deploy --env dev" in said.stderr
    stack.project.invoke("deploy", "--yes")
    for name, value in old.items():
        assert (stack.accepts(name, stack.secret(name)), stack.accepts(name, value)) == (True, False), name
    assert serves(stack)


@pytest.mark.fault
def test_a_secret_that_compose_declares_and_nobody_made(stack: Stack) -> None:
    project = stack.project
    (project.folder / "docker-compose.stripe.yml").write_text(_STRIPE)
    project.set(COMPOSE_FILE=f"{project.settings()['COMPOSE_FILE']}:docker-compose.stripe.yml")
    assert "STRIPE_KEY: missing" in project.invoke("doctor", code=1).stdout
    refused = project.invoke("deploy", "--yes", code=3)
    assert "install -m 0444 /dev/stdin config/dev/secrets/STRIPE_KEY" in refused.stderr
    project.invoke("secret-rotate", "STRIPE_KEY", "--yes", stdin="abc\n", code=2)
    project.invoke("secret-rotate", "STRIPE_KEY", "--yes", stdin="sk_live_51HqXk2eZvKYlo2C0aBcDeFgH\n")
    project.invoke("deploy", "--yes")
    (web,) = stack.containers("web")
    assert docker("exec", web, "cat", "/run/secrets/STRIPE_KEY") == "sk_live_51HqXk2eZvKYlo2C0aBcDeFgH"
    before = stack.containers("postgres-primary", "api")
    project.invoke("secret-rotate", "STRIPE_KEY", "--yes", stdin="sk_live_61HqXk2eZvKYlo2C0aBcDeFgH\n")
    assert stack.containers("web") != [web]
    assert stack.containers("postgres-primary", "api") == before
