"""PostgreSQL: which node is the primary, asked of the nodes themselves, and how the other one follows.

The names of the services are names of nodes; what a node is at this moment only the node knows. With
docker-compose.postgres-failover.yml Patroni decides who is the primary, without it a person does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container
from ops.stack import labels
from ops.stack.labels import STATEFUL

NODES = ("postgres-primary", "postgres-replica")
PRIMARY, STANDBY = "primary", "standby"
# A node that needs longer is in trouble, and has said so.
ANSWER_SECONDS = 10
# A standby further behind would need too long to become the primary, and whoever waits for it is away meanwhile.
LAG_BYTES = 16 << 20

# followers: by name of the node. lag: bytes not yet replayed there.
_ASK = """
SELECT json_build_object(
  'standby', pg_is_in_recovery(),
  'timeline', CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
  'receiver', (SELECT status FROM pg_stat_wal_receiver),
  'followers', (SELECT coalesce(json_object_agg(application_name, json_build_object('state', state, 'sync', sync_state,
      'lag', pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))), '{}')
    FROM pg_stat_replication WHERE NOT pg_is_in_recovery() AND application_name LIKE 'postgres-%'));
"""


@dataclass(frozen=True)
class Node:
    """A running node. role: "" when it gives no answer, and then reason says why. receiving: a standby gets WAL.
    followers: of a primary, by name: state, sync, lag (bytes)."""

    container: Container
    role: str = ""
    reason: str = ""
    timeline: int = 0
    receiving: bool = False
    followers: dict[str, dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        return self.container.service

    @property
    def automatic(self) -> bool:
        """Patroni decides what it is."""
        return STATEFUL in self.container.labels


@dataclass(frozen=True)
class View:
    """The running nodes, and what Patroni says about them (None: there is no Patroni, or it does not answer)."""

    nodes: tuple[Node, ...]
    cluster: dict[str, Any] | None = None

    @property
    def automatic(self) -> bool:
        """Whether the standby takes over by itself."""
        return any(node.automatic for node in self.nodes)

    @property
    def primary(self) -> Node | None:
        """The primary; None when there is none. Of two, which must not be, the one with more history."""
        return max((node for node in self.nodes if node.role == PRIMARY), key=lambda node: node.timeline, default=None)

    @property
    def standby(self) -> Node | None:
        return next((node for node in self.nodes if node.role == STANDBY), None)

    def pair(self) -> tuple[Node, Node]:
        """The primary and the standby of a view without hazard. Raises ValueError for any other."""
        if not (self.primary and self.standby):
            raise ValueError(self.hazard())
        return self.primary, self.standby

    def hazard(self) -> str:
        """Why it is not safe to fail over; "" when it is."""
        primary, standby = self.primary, self.standby
        if sum(node.role == PRIMARY for node in self.nodes) > 1:
            return "two nodes take writes"
        if not primary:
            return "no node is the primary"
        if not standby:
            return "no standby answers"
        follower = (primary.followers or {}).get(standby.name)
        if not follower or follower["state"] != "streaming":
            return f"{standby.name} does not stream from {primary.name}"
        if (lag := int(follower["lag"] or 0)) > LAG_BYTES:
            return f"{standby.name} is {console.size(lag)} behind"
        return self._patroni_hazard(primary, standby, follower["sync"]) if self.automatic else ""

    def _patroni_hazard(self, primary: Node, standby: Node, sync: str) -> str:
        if self.cluster is None:
            return "etcd or Patroni does not answer"
        if self.cluster.get("pause"):
            return "Patroni is paused (patronictl resume)"
        roles = {member["name"]: member["role"] for member in self.cluster["members"]}
        if roles.get(primary.name) != "leader":
            return f"{primary.name} does not hold the lease"
        if sync not in {"sync", "quorum"} or roles.get(standby.name) not in {"sync_standby", "quorum_standby"}:
            return f"{standby.name} is not synchronous: it may lack what was acknowledged"
        return ""


def running(containers: Iterable[Container]) -> list[Container]:
    """The containers of nodes that run."""
    return [each for each in containers if each.service in NODES and each.running]


def look(env: Environment, containers: Iterable[Container]) -> View:
    """Ask every running node, at once."""
    mine = running(containers)
    if not mine:
        return View(())
    with engine.pool(len(mine) + 1) as pool:
        cluster = pool.submit(_cluster, mine)
        return View(tuple(pool.map(lambda each: ask(env, each), mine)), cluster.result())


def roles(env: Environment, containers: Iterable[Container]) -> dict[str, str]:
    """The role of every node that answers, by service."""
    return {node.name: node.role for node in look(env, containers).nodes if node.role}


def ask(env: Environment, container: Container) -> Node:
    """What one node says about itself."""
    argv = psql(env, "--command", _ASK, database="postgres")
    try:
        done = engine.exec_(container.id, argv, check=False, timeout=ANSWER_SECONDS)
        if not done.ok:
            return Node(container, reason=engine.reason(done.stderr, f"exit code {done.code}"))
        answer = json.loads(done.stdout)
        role = STANDBY if answer["standby"] else PRIMARY
    except OpsError as error:
        return Node(container, reason=error.message)
    except (ValueError, KeyError, TypeError) as error:
        return Node(container, reason=f"unexpected answer: {error}")
    return Node(
        container,
        role,
        timeline=answer["timeline"],
        receiving=answer["receiver"] == "streaming",
        followers=answer["followers"],
    )


def psql(env: Environment, *options: str, database: str = "") -> list[str]:
    """Command line of psql inside a node, as superuser over the local socket."""
    user, usual = env.values.get("POSTGRES_USER", "postgres"), env.values.get("POSTGRES_DB", "postgres")
    return [
        *("psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"),
        *(f"--username={user}", f"--dbname={database or usual}"),
        *options,
    ]


def primary(env: Environment, containers: Sequence[Container]) -> Container:
    """The container of the primary. Raises OpsError when there is none."""
    view = look(env, containers)
    if found := view.primary:
        return found.container
    if not view.nodes and labels.MANAGED_FILE in env.values.get("COMPOSE_FILE", "").split(":"):
        raise OpsError(
            f"PostgreSQL of {env.name} is outside of the stack, at {env.values.get('DATABASE_HOSTS', '')}.",
            f"To ask it from where the services are: invoke shell {labels.POSTGRES_CLIENT} --env {env.name}, then psql"
            " with --host, --username and --dbname.",
            REFUSED,
        )
    if not view.nodes:
        raise OpsError(f"PostgreSQL is not running in {env.name}.", f"invoke deploy --env {env.name}")
    said = "; ".join(f"{node.name}: {node.reason or node.role}" for node in view.nodes)
    raise OpsError(f"PostgreSQL has no primary in {env.name} ({said}).", f"invoke health --env {env.name}")


# ── Patroni ───────────────────────────────────────────────────────────────────────────────────────────────────────────

# HTTP by hand: there is no curl in the image. To the node by its name, for Patroni takes orders from addresses of nodes
# only. Arguments: method, path; standard input: the body.
_REST = r"""
set -euo pipefail
body=$(cat)
login=$(printf 'patroni:%s' "$(tr -d '\r' </run/secrets/PATRONI_PASSWORD)" | base64 --wrap=0)
exec 3<>"/dev/tcp/$NODE/8008"
printf '%s %s HTTP/1.0\r\nAuthorization: Basic %s\r\n' "$1" "$2" "$login" >&3
printf 'Content-Length: %s\r\n\r\n%s' "${#body}" "$body" >&3
cat <&3
"""


def patroni(container: Container, method: str, path: str, body: str = "", timeout: float = ANSWER_SECONDS) -> str:
    """What Patroni of this node answers. Raises OpsError with its reason when it refuses, or does not answer."""
    argv = ["bash", "-c", _REST, "bash", method, path]
    done = engine.exec_(container.id, argv, input=body, check=False, timeout=timeout)
    head, _, answer = done.stdout.partition("\r\n\r\n")
    status = head.split()[1:2]
    if not done.ok or not status:
        raise OpsError(f"Patroni of {container.service} does not answer.", f"invoke logs --service {container.service}")
    if not status[0].startswith("2"):
        raise OpsError(f"Patroni of {container.service} refuses: {answer.strip() or status[0]}.")
    return answer


def forget(containers: Iterable[Container], scope: str, key: str = "") -> bool:
    """Remove a key of a cluster from etcd ("": all of them); False when etcd does not run. Raises OpsError when it
    fails. scope: the cluster's name there."""
    etcd = next((each for each in containers if each.service == "etcd" and each.running), None)
    if etcd:
        argv = ["/usr/local/bin/etcdctl", "del", *(() if key else ("--prefix",)), f"/service/{scope}/{key}"]
        engine.exec_(etcd.id, argv)
    return etcd is not None


def _cluster(containers: Sequence[Container]) -> dict[str, Any] | None:
    """The cluster as etcd knows it, from the first node that can say."""
    for each in containers:
        if STATEFUL in each.labels:
            try:
                cluster: dict[str, Any] = json.loads(patroni(each, "GET", "/cluster"))
                return cluster
            except (OpsError, ValueError):
                continue
    return None
