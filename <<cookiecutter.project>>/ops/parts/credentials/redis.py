"""Passwords of Redis: a user may have several, so the old and the new one are valid together until the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ops import engine
from ops.base.errors import OpsError
from ops.engine import Container
from ops.parts import redis
from ops.parts.credentials.base import Credential
from ops.parts.redis import digest, ownership

USERS = {"REDIS_PASSWORD": "default", "REDIS_SENTINEL_PASSWORD": "sentinel"}

_LOGIN = 'REDISCLI_AUTH=$PASSWORD exec redis-cli --no-auth-warning "$@" ping'


@dataclass(frozen=True)
class User(Credential):
    """A user that nodes and sentinels have: `default`, whom everybody is, or `sentinel`, whom the sentinels are."""

    user: str

    def both(self, new: str) -> None:
        """Add the new password to the user, everywhere."""
        for each in self.holders:
            _tell(each, f"ACL SETUSER {self.user} #{digest(new)}")

    def switch(self, new: str) -> None:
        """Let the replica and the sentinels log in with the new password."""
        word = _quoted(new)
        for each in self.holders:
            sentinel = each.service in redis.SENTINELS
            if self.user == "default" and not sentinel:
                _tell(each, f"CONFIG SET masterauth {word}")
            if self.user == "sentinel" and sentinel:
                _tell(each, f"SENTINEL SET stack auth-pass {word}", f"SENTINEL CONFIG SET sentinel-pass {word}")

    def only(self, new: str) -> None:
        """Take every other password from the user. Connections that are open stay."""
        for each in self.holders:
            _tell(each, f"ACL SETUSER {self.user} resetpass #{digest(new)}")

    def accepts(self, value: str) -> dict[str, bool]:
        """Log in everywhere."""
        found = {}
        for each in self.holders:
            options = ["--user", self.user, *(["-p", "26379"] if each.service in redis.SENTINELS else [])]
            argv = ["sh", "-c", _LOGIN, "sh", *options]
            done = engine.exec_(each.id, argv, variables={"PASSWORD": value}, check=False)
            answer = f"{done.stdout}{done.stderr}"
            if "PONG" not in answer and "WRONGPASS" not in answer and "NOAUTH" not in answer:
                raise OpsError(f"{each.service} cannot be asked: {engine.reason(answer)}")
            found[each.service] = "PONG" in done.stdout
        return found


@dataclass(frozen=True)
class ServiceUser(User):
    """A user of a service. Nodes and sentinels keep it on their volumes."""

    in_volume: ClassVar[bool] = True

    def switch(self, new: str) -> None:
        """Begin with the new password after a restart; until the end, both are accepted."""
        ownership.keep(self.holders, {self.user: digest(new)})

    def only(self, new: str) -> None:
        """Take every other password from the user. Connections that are open stay."""
        ownership.tell(self.holders, {self.user: digest(new)})


def holders(running: Sequence[Container], user: str) -> list[Container]:
    """Where a user is known. Without sentinels nobody is `sentinel`."""
    found = [each for each in running if each.service in (*redis.NODES, *redis.SENTINELS)]
    return found if user != "sentinel" or redis.sentinels(found) else []


def _quoted(value: str) -> str:
    """A word of a line that redis-cli reads."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tell(container: Container, *lines: str) -> None:
    """Commands with every right, by standard input: a command line shows what is on it."""
    done = engine.exec_(container.id, ["sh", "/etc/redis/cli.sh"], input="\n".join(lines) + "\n", check=False)
    said = [line for line in done.stdout.splitlines() if line.strip()]
    if not done.ok or said != ["OK"] * len(lines):
        wrong = [line for line in said if line != "OK"] or [engine.reason(done.stderr)]
        raise OpsError(f"{container.service}: {wrong[0]}")
