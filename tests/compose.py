"""What Compose makes of a baked project. Needs the client and its Compose plugin, no engine."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

Model = dict[str, Any]

# Named in COMPOSE_FILE where an environment wants them.
OPTIONAL_FILES = (
    "docker-compose.postgres-failover.yml",
    "docker-compose.redis-failover.yml",
    "docker-compose.rabbitmq-cluster.yml",
    "docker-compose.scheduler.yml",
    "docker-compose.backup.yml",
    "docker-compose.backup-volumes.yml",
    # Beside a PostgreSQL of the stack they have no meaning, and resolve all the same.
    "docker-compose.postgres-managed.yml",
    "docker-compose.postgres-clients.yml",
)
# What only adds to another optional file, by that file.
ADDITIONS = {
    "docker-compose.backup.yml": "docker-compose.backup-volumes.yml",
    "docker-compose.postgres-managed.yml": "docker-compose.postgres-clients.yml",
}
# What comes with them in .env.
OPTIONAL_SETTINGS = {
    "REDIS_SENTINELS": ",".join(f"redis-sentinel-{number}:26379" for number in (1, 2, 3)),
    "RABBITMQ_HOSTS": "rabbitmq,rabbitmq-2,rabbitmq-3",
}
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def unavailable() -> str | None:
    """Why configurations cannot be resolved on this machine, if so."""
    if not shutil.which("docker"):
        return "there is no docker client"
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True)
    return None if done.returncode == 0 else "the docker client has no Compose plugin"


def config(project: Path, environment: str, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose config` as a person would, with some settings changed by the shell's environment."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    return subprocess.run(
        ["docker", "compose", "--env-file", f"config/{environment}/.env", *options],
        cwd=project,
        env=environ | settings,
        capture_output=True,
        text=True,
    )


@functools.cache
def resolve(project: Path, environment: str, everything: bool = True) -> Model:
    """The resolved model of an environment; `everything` includes what its profiles and its COMPOSE_FILE leave out."""
    profiles = ("--profile", "*") if everything else ()
    files = {"COMPOSE_FILE": ":".join(all_files(project, environment))}
    settings = files | OPTIONAL_SETTINGS if everything else {}
    done = config(project, environment, *profiles, "config", "--format", "json", **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rendered(project: Path, environment: str, more: Model | None = None) -> dict[str, str]:
    """The files that a deploy of an environment would render for nginx, HAProxy and Prometheus. more: services beside
    those that it declares."""
    model = resolve(project, environment)
    model = {**model, "services": model["services"] | (more or {})}
    script = "import json, sys; from ops.parts import routes; from ops.stack import model; " + (
        "json.dump(routes.render(model.parse(json.load(sys.stdin))), sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        input=json.dumps(model),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def all_files(project: Path, environment: str) -> list[str]:
    """The Compose files of an environment with every one that it could have; what overrides comes last."""
    own = (dotenv_values(project / "config" / environment / ".env")["COMPOSE_FILE"] or "").split(":")
    optional = [name for name in OPTIONAL_FILES if name not in own]
    return [*own, *optional]


def seconds(duration: str) -> float:
    """Seconds of a Compose duration such as `1m30s`."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[hms])", duration))
