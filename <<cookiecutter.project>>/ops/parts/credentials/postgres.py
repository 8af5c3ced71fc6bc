"""Passwords of PostgreSQL: its roles, and Patroni's own.

A role has one password. Connections that are open stay; whoever opens one in the moment between reads the file again,
as the services do at each connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import postgres
from ops.parts.credentials.base import Credential
from ops.parts.postgres import managed
from ops.parts.postgres import running as nodes
from ops.stack.labels import STATEFUL

__all__ = ["Outside", "Patroni", "Role", "automatic", "nodes", "role_of"]

# The stack's own, by the name of the secret. The superuser's name is a setting.
ROLES = {"REPLICATION_PASSWORD": "replicator", "METRICS_DB_PASSWORD": "metrics"}
# Those that the nodes log in to each other with.
_OF_NODES = {"POSTGRES_PASSWORD", "REPLICATION_PASSWORD"}
_APPLY_SECONDS = 30.0

# A failed statement would be logged with the password in it.
_ALTER = r"""
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_statement = none;
\getenv password PASSWORD
ALTER ROLE :"role" PASSWORD :'password';
"""

# A request that Patroni answers with 404 when nothing is scheduled, and with 401 when the password is wrong.
_ASK_PATRONI = r"""
set -euo pipefail
login=$(printf 'patroni:%s' "$PASSWORD" | base64 --wrap=0)
exec 3<>"/dev/tcp/$NODE/8008"
printf 'DELETE /restart HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n' "$login" >&3
read -r _ status _ <&3
echo "$status"
"""


def role_of(env: Environment, name: str) -> str:
    """The role whose password a secret is; "" when it is none of the stack's own."""
    return env.values.get("POSTGRES_USER", "postgres") if name == "POSTGRES_PASSWORD" else ROLES.get(name, "")


def automatic(node: Container) -> bool:
    """Whether Patroni runs this node."""
    return STATEFUL in node.labels


@dataclass(frozen=True)
class Role(Credential):
    """The password of a role. database: where it may connect, when that is not the common one."""

    env: Environment
    role: str
    secret: str
    database: str = ""
    in_volume: ClassVar[bool] = True
    keepers: ClassVar[tuple[str, ...]] = postgres.NODES

    def check(self) -> None:
        """Raise OpsError unless there is a primary."""
        if self.holders:
            postgres.primary(self.env, self.holders)

    def switch(self, new: str) -> None:
        """Change the role on the primary, and tell the nodes what they log in to each other with."""
        if not self.holders:
            return
        primary = postgres.primary(self.env, self.holders)
        argv = postgres.psql(self.env, f"--set=role={self.role}", "--file=-")
        engine.exec_(primary.id, argv, variables={"PASSWORD": new}, input=_ALTER)
        if self.secret in _OF_NODES:
            for node in self.holders:
                refresh(node)

    def accepts(self, value: str) -> dict[str, bool]:
        """Log in to the primary over TCP, from inside."""
        if not self.holders:
            return {}
        primary = postgres.primary(self.env, self.holders)
        common = "postgres" if self.role in {"replicator", "metrics"} else self.env.values.get("POSTGRES_DB", "")
        argv = ["psql", "--no-psqlrc", "--no-password", "--host=127.0.0.1", f"--username={self.role}"]
        argv += [f"--dbname={self.database or common}", "--command=SELECT 1"]
        done = engine.exec_(primary.id, argv, variables={"PGPASSWORD": value}, check=False)
        if not done.ok and "password authentication failed" not in done.stderr:
            raise OpsError(f"{primary.service} cannot be asked: {engine.reason(done.stderr)}")
        return {primary.service: done.ok}


@dataclass(frozen=True)
class Outside(Credential):
    """The password of a role in a PostgreSQL outside of the stack, where nobody here may change it."""

    env: Environment
    role: str
    secret: str

    def check(self) -> None:
        """Raise OpsError (REFUSED) with what to do instead."""
        raise OpsError(
            f"{self.secret} is a password at {managed.shown(self.env)}, outside of the stack.",
            f"Change it there: ALTER ROLE {self.role} PASSWORD '…'. Then write the new one into the same file,"
            f" config/{self.env.name}/secrets/{self.secret}: services read it at their next connection.",
            REFUSED,
        )


def refresh(node: Container) -> None:
    """Let a node read its password files again."""
    if automatic(node):
        engine.exec_(node.id, ["python3", "/etc/postgresql/failover.py", "reload"])
    else:
        engine.exec_(node.id, ["bash", "/etc/postgresql/node.sh", "passfile"])


@dataclass(frozen=True)
class Patroni(Credential):
    """The password of the nodes' orders to each other; there is none without Patroni."""

    def switch(self, new: str) -> None:
        """Let every node read the file again, and wait until it has."""
        for node in self.holders:
            refresh(node)
        if not until(lambda: all(self.accepts(new).values()), _APPLY_SECONDS, 0.5):
            raise OpsError("Patroni does not take the new password.", "invoke logs --service postgres-primary")

    def accepts(self, value: str) -> dict[str, bool]:
        """Ask each node for something that needs the password."""
        found = {}
        for node in self.holders:
            done = engine.exec_(node.id, ["bash", "-c", _ASK_PATRONI], variables={"PASSWORD": value}, check=False)
            if not done.ok:
                raise OpsError(f"Patroni of {node.service} cannot be asked: {engine.reason(done.stderr)}")
            found[node.service] = done.stdout.strip() != "401"
        return found
