"""Connections that the services may hold at once, against what PostgreSQL allows.

A service says in a label how many one container of it may hold to one server; nothing else knows.
"""

from __future__ import annotations

from collections.abc import Mapping

from ops.base.environments import Environment, relative
from ops.base.findings import FAILED, OK, WARNING, Check
from ops.stack.model import Stack

LABEL = "ops.database-connections"
# Setting of what a server allows, and PostgreSQL's own default.
LIMIT = ("POSTGRES_MAX_CONNECTIONS", 100)
# For health checks, exporters, backups, migrations, and a person with psql.
RESERVED = 10


def per_container(stack: Stack) -> dict[str, int]:
    """How many connections one container may hold, by service; only of services that say so."""
    entries = stack.document.get("services") or {}
    return {name: int(value) for name in stack.lasting if (value := (entries[name].get("labels") or {}).get(LABEL))}


def check(env: Environment, stack: Stack, replicas: Mapping[str, int] | None = None) -> Check:
    """What all containers may hold at once, against the limit.

    replicas: another number of containers than is declared, by service. A failure is too many as it stands; a warning,
    too many while a rollout runs the old and the new containers of every service beside each other.
    """
    counts = {name: each.replicas for name, each in stack.lasting.items()} | dict(replicas or {})
    each_holds = per_container(stack)
    limit = env.number(*LIMIT)
    usable = limit - RESERVED
    steady = sum(counts[name] * held for name, held in each_holds.items())
    rolling = sum(
        (counts[name] * 2 if name in stack.rolling else counts[name]) * held for name, held in each_holds.items()
    )
    detail = f"services may hold {steady} connections, {rolling} during a rollout; {usable} of {limit} are theirs"
    remedy = (
        f"Run fewer containers, raise {LIMIT[0]} in {relative(env.env_file)} with memory for it (about 10 MB each),"
        " or put a pooler such as PgBouncer before PostgreSQL."
    )
    if steady > usable:
        return Check("connections", FAILED, detail, remedy)
    if rolling > usable:
        return Check("connections", WARNING, detail, remedy)
    return Check("connections", OK, detail)
