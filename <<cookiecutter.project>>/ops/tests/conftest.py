"""What the tests share: a small project on disk, and containers and services made up as needed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import engine
from ops.base import environments
from ops.base.environments import Environment
from ops.engine import Container
from ops.stack.model import Service, Stack
from ops.state import document, store
from ops.state.document import State

# A run in the background, or under nohup, ignores these, and so would everything that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SETTINGS = """\
ENVIRONMENT={name}
COMPOSE_PROJECT_NAME=acme-{name}
COMPOSE_FILE=docker-compose.yml
MONITORING_ENABLED=false
COMPOSE_PROFILES=monitoring-${{MONITORING_ENABLED}}
DOMAIN=localhost
IMAGE_PREFIX=acme
IMAGE_TAG=current
BUILD_TARGET=production
WEB_PORT=8080
SSL_PORT=8443
# how many of each
WEB_REPLICAS=2
"""


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would ask the engine of this machine fails on every machine, and not only where there is none."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the environments dev, staging and prod; it is the current directory."""
    for name in ("dev", "staging", "prod"):
        folder = tmp_path / "config" / name
        (folder / "secrets").mkdir(parents=True)
        (folder / ".env").write_text(SETTINGS.format(name=name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def env(project: Path) -> Environment:
    """The environment dev of that project."""
    return environments.load("dev", project)


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """In place of an engine, memory that keeps the two files of a state; nothing is in them yet."""
    files: dict[str, str] = {}

    def write(_env: Environment, state: State) -> State:
        following = replace(state, generation=state.generation + 1)
        files["ab"[following.generation % 2]] = document.encode(following)
        return following

    monkeypatch.setattr(store, "read", lambda _env: document.newest(files.values()))
    monkeypatch.setattr(store, "write", write)
    notes: dict[str, str] = {}
    monkeypatch.setattr(store, "note", lambda _env, name: notes.get(name, ""))
    monkeypatch.setattr(store, "put_note", lambda _env, name, text: notes.update({name: text}))
    return files


@pytest.fixture
def remembered(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files of a state, on an engine where no container is."""
    monkeypatch.setattr(engine, "containers", lambda _env: [])
    return stored


@pytest.fixture
def make_container() -> Callable[..., Container]:
    """A healthy container of a service; anything may be said otherwise."""
    usual = Container(
        id="", name="", service="", number=1, state="running", health="healthy", image_id="sha256:1", image="",
        config_hash="hash", created=1000.0, started=1000.0,
    )  # fmt: skip

    def make(service: str = "web", number: int = 1, **changes: object) -> Container:
        name = f"acme-dev-{service}-{number}"
        return replace(usual, **{"id": name, "name": name, "service": service, "number": number, **changes})

    return make


@pytest.fixture
def make_stack() -> Callable[..., Stack]:
    """A stack of the given services. document: what they were read from."""

    def make(*services: Service, document: Mapping[str, Any] | None = None) -> Stack:
        return Stack("acme-dev", {each.name: each for each in services}, document or {})

    return make
