"""What the services own in the data tier, made as they declare it, and the role that backups are taken as: by commands
to the servers that run, never by a restart.

A deploy asks what is missing (`look`) and makes it (`provide`); `invoke health` asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ops.base.environments import Environment
from ops.base.errors import FAILED, USAGE, OpsError
from ops.engine import Container
from ops.parts import postgres, rabbitmq, redis
from ops.parts.postgres import managed
from ops.parts.postgres import ownership as databases
from ops.parts.rabbitmq import ownership as broker
from ops.parts.redis import ownership as cache
from ops.stack import labels as stack_labels
from ops.stack import owned as labels
from ops.stack.model import Stack
from ops.stack.owned import Owned, RedisUser, Role, User

POSTGRESQL, RABBITMQ, REDIS = "PostgreSQL", "RabbitMQ", "Redis"
_COPIES = "BACKUP_DB_PASSWORD"


@dataclass(frozen=True)
class Need:
    """What a part lacks for a service: causes, in words. later: the part gives no answer yet, so nobody can tell."""

    part: str
    service: str
    causes: tuple[str, ...]
    later: bool = False


def declared(env: Environment, stack: Stack) -> Owned:
    """What the services own. Raises OpsError (USAGE) for labels and files that cannot be meant."""
    owned = labels.declared(stack, env.values.get("POSTGRES_USER", ""), env.values.get("POSTGRES_DB", ""))
    kinds: Sequence[tuple[Sequence[Role | User | RedisUser], str, Sequence[str]]] = (
        (owned.roles, POSTGRESQL, postgres.NODES),
        (owned.users, RABBITMQ, rabbitmq.NODES),
        (owned.redis_users, REDIS, redis.NODES),
    )
    owned = replace(owned, managed=managed.SERVICE in stack.services)
    for what, part, nodes in kinds:
        outside = part == POSTGRESQL and owned.managed
        if what and not outside and not any(node in stack.services for node in nodes):
            raise OpsError(
                f"The Compose files: {what[0].services[0]} has the label {what[0].label}, and no file of COMPOSE_FILE"
                f" declares {part}.",
                "Remove the label: somebody else makes what is outside this stack. Its password is then a secret that"
                " you provide.",
                USAGE,
            )
    broker.declared(env.project_dir, owned)
    copying = [name for name, each in stack.services.items() if stack_labels.is_backup(each.labels)]
    if copying and (owned.managed or any(node in stack.services for node in postgres.NODES)):
        role = Role("backup", _COPIES, services=tuple(copying), copies=True)
        return replace(owned, roles=(*owned.roles, role))
    return owned


def look(env: Environment, owned: Owned, containers: Sequence[Container]) -> tuple[Need, ...]:
    """What is missing, by part and service. Raises OpsError (REFUSED) when something of a name belongs to others, or is
    missing in a managed PostgreSQL."""
    found: list[Need] = []
    if owned.roles:
        found += _asked(POSTGRESQL, owned.roles, lambda: _roles(env, owned, containers))
    if owned.users:
        found += _asked(RABBITMQ, owned.users, lambda: _users(env, owned, containers))
    if owned.redis_users:
        found += _asked(REDIS, owned.redis_users, lambda: cache.missing(env, owned, containers))
    return tuple(found)


def _asked(
    part: str, what: Sequence[Role | User | RedisUser], ask: Callable[[], Mapping[Any, tuple[str, ...]]]
) -> Iterator[Need]:
    try:
        lacking = ask()
    except OpsError as error:
        # No answer is no finding: what does not run is about to be started.
        if error.code != FAILED:
            raise
        for service in dict.fromkeys(each.services[0] for each in what):
            yield Need(part, service, (f"{part} does not answer yet",), later=True)
        return
    for each, causes in lacking.items():
        yield Need(part, each.services[0], causes)


def _roles(env: Environment, owned: Owned, containers: Sequence[Container]) -> dict[Role, tuple[str, ...]]:
    if owned.managed:
        managed.refuse_missing(env, owned, managed.client(env, containers))
        return {}
    return databases.missing(env, owned, postgres.primary(env, containers))


def _users(env: Environment, owned: Owned, containers: Sequence[Container]) -> dict[User, tuple[str, ...]]:
    return broker.missing(env, owned, rabbitmq.node(env, containers))


def provide(env: Environment, owned: Owned, containers: Sequence[Container], parts: Iterable[str]) -> None:
    """Make what is missing in some parts, which run by now. Raises OpsError, also for what a managed one lacks."""
    if POSTGRESQL in parts and owned.managed:
        managed.refuse_missing(env, owned, managed.client(env, containers))
    elif POSTGRESQL in parts:
        databases.provide(env, owned, postgres.primary(env, containers))
    if RABBITMQ in parts:
        broker.provide(env, owned, rabbitmq.node(env, containers))
    if REDIS in parts:
        cache.provide(env, owned, containers)
