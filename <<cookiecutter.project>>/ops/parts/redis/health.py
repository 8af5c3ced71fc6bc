"""The health of Redis: a write on the primary must be confirmed by a replica, and the sentinels must be able to act."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ops.base import console
from ops.engine import Container
from ops.parts import redis
from ops.parts.probes import WRITE_SECONDS, Check, Probe, Seen, judge_owned, output
from ops.parts.redis import ownership
from ops.stack import owned as labels

TITLE = "Redis"


def probes(seen: Seen) -> Iterator[Probe]:
    """Ask each running node and sentinel."""
    for each in seen.running(*redis.NODES):
        yield Probe("redis", each.service, partial(_redis_node, each))
    for each in seen.running(*redis.SENTINELS):
        yield Probe("redis", each.service, partial(_redis_sentinel, each))
    if seen.running(*redis.NODES):
        yield Probe("redis", "services", partial(_owned, seen))


def _owned(seen: Seen) -> list[Check]:
    owned = labels.declared(seen.declared)
    if not owned.redis_users:
        return []
    missing = ownership.missing(seen.env, owned, seen.containers)
    return [judge_owned("redis", seen.env, owned.claimants(owned.redis_users), missing.values())]


# A line each: the primary's name ("?" when the sentinels do not agree), what became of a write, how many replicas
# confirmed it; then what the node says about itself. On a replica the write is refused.
_REDIS_NODE = f"""
sh {redis.PRIMARY_SCRIPT} || echo '?'
export REDISCLI_AUTH=$(tr -d '\\r' </run/secrets/REDIS_PASSWORD)
redis-cli --no-auth-warning <<'END' || true
SET health:probe 1 EX 10
WAIT 1 {WRITE_SECONDS * 1000}
INFO replication
END
"""

_SENTINEL = """
export REDISCLI_AUTH=$(tr -d '\\r' </run/secrets/REDIS_PASSWORD)
cat /data/patience
redis-cli -p 26379 --no-auth-warning sentinel ckquorum stack
redis-cli -p 26379 --no-auth-warning sentinel master stack
"""


def _redis_node(container: Container) -> list[Check]:
    return judge_redis_node(container.service, output(container, "sh", "-c", _REDIS_NODE))


def judge_redis_node(node: str, answer: str) -> list[Check]:
    """The node has the role it should have, and fills it: a replica confirmed a write just now, or its link is up."""
    named, *said = (line for line in answer.replace("\r", "").splitlines() if line)
    if len(said) < 3:
        who = "the sentinels do not agree on" if named == "?" else f"{named} is"
        return [Check("redis", node, "fail", f"does not answer; {who} the primary")]
    written, confirmed, *rest = said
    state = redis.parse_info(rest)
    if state.get("role") == "slave" and named != node:
        return [_redis_replica(node, state)]
    if state.get("role") != "master":
        words = f"its role is {state.get('role', 'unknown')}, though it should be the primary: nothing can be written"
        return [Check("redis", node, "fail", words)]
    if named != node:
        who = "the sentinels do not agree on one" if named == "?" else f"{named} is it"
        return [Check("redis", node, "fail", f"takes itself for the primary, but {who}")]
    if written != "OK":
        return [Check("redis", node, "fail", f"primary, refuses writes: {written}")]
    return [Check("redis", node, "ok", "primary, takes writes"), _redis_replication(int(confirmed), state)]


def _redis_replication(confirmed: int, state: dict[str, str]) -> Check:
    if confirmed < 1:
        replicas = int(state.get("connected_slaves", 0))
        words = f"a write was not confirmed within {WRITE_SECONDS} s" if replicas else "no replica is connected"
        return Check("redis", "replication", "fail", words)
    behind = int(state["master_repl_offset"]) - max(
        int(dict(part.split("=", 1) for part in value.split(","))["offset"])
        for key, value in state.items()
        if key.startswith("slave") and key[5:].isdigit()
    )
    return Check("redis", "replication", "ok", f"a write was confirmed, {console.size(max(0, behind))} behind")


def _redis_replica(node: str, state: dict[str, str]) -> Check:
    if not redis.follows(state):
        since = console.duration(max(0, int(state.get("master_link_down_since_seconds", 0))))
        return Check("redis", node, "fail", f"replica, its link to the primary is down since {since}")
    silent = int(state.get("master_last_io_seconds_ago", 0))
    return Check("redis", node, "ok", f"replica, link up, heard from the primary {silent} s ago")


def _redis_sentinel(container: Container) -> list[Check]:
    return [judge_redis_sentinel(container.service, output(container, "sh", "-c", _SENTINEL))]


def judge_redis_sentinel(name: str, answer: str) -> Check:
    """The sentinel sees enough others for a failover, and may start one.

    answer: how long silence should last, the verdict about the quorum, then names and values of what it knows about the
    primary, a line each.
    """
    patience, quorum, *rest = (line for line in answer.replace("\r", "").splitlines() if line)
    known = dict(zip(rest[::2], rest[1::2], strict=False))
    if not quorum.startswith("OK"):
        return Check("redis", name, "fail", f"no failover is possible: {quorum}")
    says = f"{known.get('ip', 'nobody')} is primary"
    if "down" in known.get("flags", ""):
        return Check("redis", name, "fail", f"{says}, and does not answer")
    if known.get("num-slaves") == "0":
        return Check("redis", name, "fail", f"{says}; no failover is possible: it knows no replica")
    if known.get("down-after-milliseconds") != patience:
        return Check("redis", name, "warn", f"{says}; failover is suspended by a restore, or one that was killed")
    usable = quorum.split()[1]
    return Check(
        "redis", name, "ok" if int(usable) >= len(redis.SENTINELS) else "warn", f"{says}, {usable} agree on it"
    )
