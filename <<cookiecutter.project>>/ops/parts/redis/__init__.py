"""Redis: its nodes, which of them is the primary, and the sentinels that decide it.

The services redis-primary and redis-replica are nodes. In a plain pair their names are their roles; with sentinels a
failover swaps the roles, so whoever needs the primary asks here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.engine import Container

NODES = ("redis-primary", "redis-replica")
SENTINELS = ("redis-sentinel-1", "redis-sentinel-2", "redis-sentinel-3")

# Prints the primary's node: the one place that knows how to find it, for the nodes themselves too.
PRIMARY_SCRIPT = "/etc/redis/primary.sh"

# How long the sentinels take silence for planned; longer than both nodes need to be stopped, filled and started.
SUSPENDED_MILLISECONDS = 600_000
_SUSPEND = f"sh /etc/redis/cli.sh sentinel set stack down-after-milliseconds {SUSPENDED_MILLISECONDS}"
_RESUME = 'sh /etc/redis/cli.sh sentinel set stack down-after-milliseconds "$(cat /data/patience)"'


_CLI = r"""
export REDISCLI_AUTH=$(tr -d '\r' </run/secrets/REDIS_PASSWORD)
exec redis-cli --no-auth-warning "$@"
"""


def digest(password: str) -> str:
    """SHA-256, as Redis keeps a password."""
    return hashlib.sha256(password.encode()).hexdigest()


def argv(*arguments: str) -> list[str]:
    """Command line of redis-cli inside a node; the password is on no command line."""
    return ["sh", "-c", _CLI, "sh", *arguments]


def info(container: Container, section: str) -> dict[str, str]:
    """A section of what a node says about itself. Raises OpsError."""
    return parse_info(_run(container, argv("INFO", section)).splitlines())


def parse_info(lines: Sequence[str]) -> dict[str, str]:
    """The fields of an answer to INFO."""
    return dict(line.rstrip("\r").split(":", 1) for line in lines if ":" in line)


def follows(replication: Mapping[str, str]) -> bool:
    """Whether a node is a replica that hears its primary, by its INFO replication."""
    return replication.get("role") == "slave" and replication.get("master_link_status") == "up"


def nodes(containers: Sequence[Container]) -> list[Container]:
    """The containers of both nodes, stopped ones too."""
    return [each for each in containers if each.service in NODES]


def sentinels(containers: Sequence[Container]) -> list[Container]:
    """The running sentinels; none where there is no automatic failover."""
    return [each for each in containers if each.service in SENTINELS and each.running]


def primary(env: Environment, containers: Sequence[Container]) -> Container:
    """The container of the primary. Raises OpsError when it does not run, or the sentinels do not agree which it is."""
    running = {each.service: each for each in nodes(containers) if each.running}
    remedy = f"invoke health --env {env.name}"
    if not running:
        raise OpsError(f"{', '.join(NODES)} are not running in {env.name}.", f"invoke deploy --env {env.name}")
    asked = engine.exec_(next(iter(running.values())).id, ["sh", PRIMARY_SCRIPT], check=False)
    name = asked.stdout.strip()
    if not name:
        raise engine.explain(asked.stderr) or OpsError("The sentinels do not agree which Redis is the primary.", remedy)
    if name not in running:
        raise OpsError(f"{name}, the primary of Redis, is not running in {env.name}.", remedy)
    return running[name]


def suspend_failover(containers: Sequence[Container]) -> None:
    """Let the sentinels sit still while the nodes are stopped on purpose. It ends by itself when they are restarted."""
    for each in sentinels(containers):
        _run(each, ["sh", "-c", _SUSPEND])


def resume_failover(containers: Sequence[Container]) -> None:
    """Let the sentinels act again."""
    for each in sentinels(containers):
        _run(each, ["sh", "-c", _RESUME])


def _run(container: Container, line: Sequence[str]) -> str:
    done = engine.exec_(container.id, line, check=False)
    said = (done.stderr or done.stdout).strip()
    # redis-cli reports what the server refuses on its output, and exits 0.
    if not done.ok or done.stdout.startswith(("ERR", "NOAUTH", "NOPERM", "WRONGPASS")):
        complaint = said.splitlines()[0] if said else f"exit code {done.code}"
        raise engine.explain(done.stderr) or OpsError(f"{container.service}: {complaint}")
    return done.stdout
