"""Users of the services in Redis: what its nodes and sentinels lack of what labels declare, and making it.

Each node and each sentinel is told by itself, for users are not replicated, and keeps them on its volume
(infrastructure/redis/users.sh). Nothing restarts. A user that nobody declares any more stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container
from ops.parts import redis
from ops.secrets.files import read
from ops.stack.owned import Owned, RedisUser

_SCRIPT = "/etc/redis/users.sh"
_ENTRY = re.compile(r"(\S+) ([0-9a-f]{64})")


def holders(containers: Sequence[Container]) -> list[Container]:
    """Whoever has users: the running nodes and sentinels. Raises OpsError when no node runs."""
    running = [each for each in redis.nodes(containers) if each.running]
    if not running:
        raise OpsError("Redis is not running.")
    return [*running, *redis.sentinels(containers)]


def missing(env: Environment, owned: Owned, containers: Sequence[Container]) -> dict[RedisUser, tuple[str, ...]]:
    """What each user lacks, in words; only of users that lack something. Raises OpsError when it cannot be asked."""
    found = {each.service: _look(each) for each in holders(containers)}
    needs = {user: compare(user, read(env, user.secret), found) for user in owned.redis_users}
    return {user: causes for user, causes in needs.items() if causes}


def compare(user: RedisUser, password: str, found: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """What a user lacks. found: by node or sentinel, digests of passwords by the names of its users."""
    causes = []
    for name, users in found.items():
        if user.name not in users:
            causes.append(f"{name} has no user {user.name}")
        elif password and users[user.name] != redis.digest(password):
            causes.append(f"{name} does not accept the password in {user.secret}")
    return tuple(causes)


def provide(env: Environment, owned: Owned, containers: Sequence[Container]) -> None:
    """Make the users in every running node and sentinel. Raises OpsError."""
    passwords = {user: read(env, user.secret) for user in owned.redis_users}
    for user, password in passwords.items():
        if not password:
            raise OpsError(
                f"The secret {user.secret} is missing or empty.", f"invoke secret-init --env {env.name}", REFUSED
            )
    tell(holders(containers), {user.name: redis.digest(password) for user, password in passwords.items()})


def tell(containers: Iterable[Container], users: Mapping[str, str]) -> None:
    """Give users their passwords, and take every other one from them. users: digests by name. Raises OpsError."""
    for each in containers:
        said = _run(each, "set", users).split()
        if said != ["OK"] * len(users):
            raise OpsError(f"{each.service}: {' '.join(said) or 'no answer'}")


def keep(containers: Iterable[Container], users: Mapping[str, str]) -> None:
    """Let users have these passwords after the next start. Raises OpsError."""
    for each in containers:
        _run(each, "keep", users)


def _look(container: Container) -> dict[str, str]:
    return dict(_ENTRY.findall(_run(container, "list", {})))


def _run(container: Container, what: str, users: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in users.items())
    done = engine.exec_(container.id, ["sh", _SCRIPT, what], input=lines, check=False)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{container.service}: {engine.reason(done.stderr)}")
    return done.stdout
