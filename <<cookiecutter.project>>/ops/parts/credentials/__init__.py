"""How each part of the stack takes a new password while it runs.

A part that keeps a password (PostgreSQL in its tables, Redis in memory) is told; who only reads one is replaced by a
rollout and needs nothing here. `of` finds the part of a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ops.base.environments import Environment
from ops.engine import Container
from ops.parts.credentials import backup, elasticsearch, grafana, postgres, rabbitmq, redis
from ops.parts.credentials.base import Credential
from ops.secrets import definitions
from ops.stack.owned import Owned

__all__ = ["Credential", "of"]


def of(env: Environment, containers: Sequence[Container], name: str, owned: Owned) -> Credential:
    """The part that keeps the secret `name`, with its running containers; one that does nothing when no part does.

    owned: what the services own, whose passwords these are.
    """
    running = [each for each in containers if each.running]
    if role := postgres.role_of(env, name):
        return postgres.Role(postgres.nodes(running), env, role, name)
    for mine in owned.roles:
        if mine.secret == name and owned.managed:
            return postgres.Outside((), env, mine.name, name)
        if mine.secret == name:
            return postgres.Role(postgres.nodes(running), env, mine.name, name, mine.database)
    for user in owned.users:
        if user.secret == name:
            return rabbitmq.User(rabbitmq.nodes(running), user.name)
    if name == backup.SECRET:
        return backup.Key([each for each in running if each.service == backup.SERVICE])
    for login_of in owned.redis_users:
        if login_of.secret == name:
            return redis.ServiceUser(redis.holders(running, login_of.name), login_of.name)
    if name == "PATRONI_PASSWORD":
        return postgres.Patroni([each for each in postgres.nodes(running) if postgres.automatic(each)])
    if login := redis.USERS.get(name):
        return redis.User(redis.holders(running, login), login)
    if name == "RABBITMQ_COOKIE":
        return rabbitmq.Cookie(rabbitmq.nodes(running))
    if login := _rabbitmq_users(env.project_dir / definitions.SOURCE).get(name):
        return rabbitmq.User(rabbitmq.nodes(running), login, env.secrets_dir / definitions.FILE)
    if login := elasticsearch.USERS.get(name):
        return elasticsearch.User([each for each in running if each.service == elasticsearch.SERVICE], login)
    if name == "GRAFANA_PASSWORD":
        return grafana.Admin([each for each in running if each.service == grafana.SERVICE])
    return Credential(())


def _rabbitmq_users(source: Path) -> dict[str, str]:
    try:
        return definitions.users(source.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
