"""A stack with automatic failover, somebody who writes to its database, and ways to take a node away."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import rollouts
from .project import Project, docker, eventually
from .rollouts import ENVIRONMENT

FAILOVER = ("docker-compose.postgres-failover.yml", "docker-compose.redis-failover.yml")
SENTINELS = "redis-sentinel-1:26379,redis-sentinel-2:26379,redis-sentinel-3:26379"
SERVICES = ("postgres-primary", "postgres-replica")
NODES = "postgres-primary:5432,postgres-replica:5432"
NETWORKS = ("database", "consensus")


def prepare(project: Project, failover: bool = True, replicas: int = 2) -> None:
    """Make staging fit for load, with automatic failover or with the plain pairs. `replicas` of each service."""
    rollouts.prepare(project, replicas)
    if failover:
        files = project.settings(ENVIRONMENT)["COMPOSE_FILE"]
        for each in FAILOVER:
            pair = each.replace("-failover", "")
            files = files.replace(f"{pair}:", f"{pair}:{each}:")
        project.set(ENVIRONMENT, COMPOSE_FILE=files, REDIS_SENTINELS=SENTINELS)


# ── who writes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Account:
    """What a writer did. acknowledged: by id, when (seconds since the epoch). failures: when, and why."""

    acknowledged: dict[int, float]
    failures: list[tuple[float, str]]

    def outage(self, begin: float, end: float) -> float:
        """The longest time in which no write was acknowledged, from `begin` to `end`, in seconds."""
        times = [begin, *sorted(at for at in self.acknowledged.values() if begin <= at <= end), end]
        return max(after - before for before, after in itertools.pairwise(times))


class Writer:
    """Writes as fast as it can, in a container on the network of the databases, until it is stopped."""

    def __init__(self, project: Project, hosts: str = NODES, role: str = "read-write", threads: int = 4) -> None:
        self.project, settings = project, project.settings(ENVIRONMENT)
        secrets = project.folder / "config" / ENVIRONMENT / "secrets"
        image = f"{settings['IMAGE_PREFIX']}/api:{ENVIRONMENT}"
        self.container = docker(
            *("run", "--detach", "--network", f"{project.name(ENVIRONMENT)}_database", "--user", "10001:10001"),
            *("--volume", f"{secrets / 'API_DB_PASSWORD'}:/run/password:ro"),
            *("--volume", f"{Path(__file__).with_name('writer.py')}:/app/writer.py:ro"),
            *("--env", f"HOSTS={hosts}", "--env", f"ROLE={role}", "--env", f"THREADS={threads}"),
            # a million ids for each millisecond, so that every write of every writer has one of its own
            *("--env", f"BEGIN={time.time_ns() // 10**6 * 10**6}", "--env", f"DATABASE={settings['POSTGRES_DB']}"),
            *("--entrypoint", "python", image, "/app/writer.py"),
        )

    def account(self) -> Account:
        """What it did so far."""
        acknowledged, failures = {}, []
        for line in docker("logs", self.container).splitlines():
            kind, _, rest = line.partition(" ")
            first, _, second = rest.partition(" ")
            if kind == "ack":
                acknowledged[int(first)] = float(second)
            elif kind == "fail":
                failures.append((float(first), second))
        return Account(acknowledged, failures)

    def stop(self) -> Account:
        """End it; what it did."""
        docker("stop", "--time", "20", self.container)
        done = self.account()
        docker("rm", "--force", "--volumes", self.container)
        return done


@contextlib.contextmanager
def writing(project: Project, **options: Any) -> Iterator[Writer]:
    """A writer that does not outlive the block."""
    writer = Writer(project, **options)
    try:
        yield writer
    finally:
        docker("rm", "--force", "--volumes", writer.container, check=False)


def lost(project: Project, account: Account) -> list[int]:
    """Acknowledged writes that the primary does not have."""
    kept = {int(line) for line in sql(project, "SELECT id FROM api.failover_probe").split()}
    return sorted(account.acknowledged.keys() - kept)


# ── the nodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def node(project: Project, service: str) -> str:
    """The container of a service that has one."""
    labels = (f"com.docker.compose.project={project.name(ENVIRONMENT)}", f"com.docker.compose.service={service}")
    return docker("ps", "-aq", "--no-trunc", *(f"--filter=label={label}" for label in labels))


def roles(project: Project) -> dict[str, str]:
    """The role of each node as `invoke status` shows it."""
    document = json.loads(project.invoke("status", "--env", ENVIRONMENT, "--json").stdout)
    return {each["service"]: each["role"] for each in document["services"] if each["service"].startswith("postgres-")}


def ask(project: Project, service: str, text: str) -> str:
    """What a node answers to SQL as superuser; "" when it does not."""
    settings = project.settings(ENVIRONMENT)
    words = ("psql", "--no-psqlrc", "-qtA", f"--username={settings['POSTGRES_USER']}", settings["POSTGRES_DB"])
    done = subprocess.run(
        ["docker", "exec", node(project, service), *words, "-c", text], capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def primary(project: Project) -> str:
    """The service that is the primary; "" while there is none."""
    return next((each for each in SERVICES if ask(project, each, "SELECT pg_is_in_recovery()") == "f"), "")


def standby(project: Project) -> str:
    """The service that is not the primary, while there is one."""
    (found,) = {*SERVICES} - {primary(project)}
    return found


def sql(project: Project, text: str) -> str:
    """What the primary answers."""
    return ask(project, eventually(lambda: primary(project), 60, "a primary"), text)


def make_table(project: Project) -> None:
    """What the writers write to."""
    sql(project, "CREATE TABLE IF NOT EXISTS api.failover_probe (id bigint PRIMARY KEY)")
    sql(project, "ALTER TABLE api.failover_probe OWNER TO api")


def synchronous(project: Project) -> bool:
    """Whether the primary has a synchronous standby."""
    leader = primary(project)
    return bool(leader) and "sync" in ask(project, leader, "SELECT sync_state FROM pg_stat_replication").split()


def settled(project: Project, seconds: float = 120) -> float:
    """Wait until a primary has a synchronous standby; how long that took."""
    began = time.monotonic()
    eventually(lambda: synchronous(project), seconds, "a synchronous standby")
    return time.monotonic() - began


# ── what happens to nodes ─────────────────────────────────────────────────────────────────────────────────────────────


def cut(project: Project, container: str) -> None:
    """Take a node off every network."""
    for network in NETWORKS:
        docker("network", "disconnect", f"{project.name(ENVIRONMENT)}_{network}", container)


def mend(project: Project, container: str, service: str) -> None:
    """Put it back, under its name."""
    for network in NETWORKS:
        docker("network", "connect", "--alias", service, f"{project.name(ENVIRONMENT)}_{network}", container)


def crash(container: str) -> None:
    """Kill process 1 behind the engine's back, so that the restart policy takes effect."""
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)
