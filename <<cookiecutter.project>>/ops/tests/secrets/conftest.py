"""What the tests of secrets share: a project with RabbitMQ's definitions, with secrets, and in a work tree of git."""

from __future__ import annotations

import json
import subprocess

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.secrets import definitions, make

DEFINITIONS = {
    "users": [
        {"name": "admin", "password_secret": "RABBITMQ_PASSWORD", "tags": ["administrator"]},
        {"name": "guide", "password_secret": "RABBITMQ_COOKIE", "tags": []},
    ],
    "queues": [{"name": "events"}],
}


@pytest.fixture
def env(env, monkeypatch):
    """The environment dev, without an engine."""
    source = env.project_dir / definitions.SOURCE
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps(DEFINITIONS))

    def no_docker(*_args, **_options):
        raise OpsError("The Docker engine does not answer.", "Start it.")

    for name in ("docker", "compose", "containers", "inspect"):
        monkeypatch.setattr(engine, name, no_docker)
    return env


@pytest.fixture
def made(env):
    """With all secrets."""
    make.init(env, None)
    return env


@pytest.fixture
def git(env):
    """Runs git in the project."""

    def run(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=env.project_dir, check=True, capture_output=True)

    return run


@pytest.fixture
def repository(made, git):
    """In a work tree of git that ignores the secrets."""
    git("init", "-q")
    (made.project_dir / ".gitignore").write_text("/config/*/secrets/*\n")
    return made
