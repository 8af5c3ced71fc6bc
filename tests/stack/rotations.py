"""Secrets of a running stack, asked from outside of the commands: does a part accept a value?

Each question is asked the way a client of that part would, and knows nothing of how a rotation does its work.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable

import jwt

from .project import Project, docker

ROLES = {
    "POSTGRES_PASSWORD": ("admin", "postgres"),
    "REPLICATION_PASSWORD": ("replicator", "postgres"),
    "AUTH_DB_PASSWORD": ("auth", "appdb"),
    "API_DB_PASSWORD": ("api", "appdb"),
    "NOTIFICATION_DB_PASSWORD": ("notification", "appdb"),
    "METRICS_DB_PASSWORD": ("metrics", "appdb"),
}
BROKER_USERS = {
    "RABBITMQ_PASSWORD": "admin",
    "API_RABBITMQ_PASSWORD": "api",
    "NOTIFICATION_RABBITMQ_PASSWORD": "notification",
}
SEARCH_USERS = {
    "ELASTIC_PASSWORD": "elastic",
    "KIBANA_PASSWORD": "kibana_system",
    "LOG_SHIPPER_PASSWORD": "log_shipper",
}

_COOKIE = """
HOME=$(mktemp -d) && export HOME && umask 077 && cat >"$HOME/.erlang.cookie" && chmod 400 "$HOME/.erlang.cookie"
rabbitmqctl --quiet eval ok.
"""
_PATRONI = """
exec 3<>"/dev/tcp/$NODE/8008"
login=$(printf 'patroni:%s' "$VALUE" | base64 -w0)
printf 'DELETE /restart HTTP/1.0\\r\\nAuthorization: Basic %s\\r\\n\\r\\n' "$login" >&3
read -r _ status _ <&3
[ "$status" != 401 ]
"""


class Stack:
    """The containers of one environment."""

    def __init__(self, project: Project, environment: str) -> None:
        self.project, self.environment = project, environment

    def secret(self, name: str) -> str:
        """The value in its file."""
        return (self.project.folder / "config" / self.environment / "secrets" / name).read_text().strip()

    def containers(self, *services: str) -> list[str]:
        """Names of the running containers of these services."""
        label = f"label=com.docker.compose.project={self.project.name(self.environment)}"
        form = '{{.Label "com.docker.compose.service"}} {{.Names}}'
        listed = (line.split() for line in docker("ps", "--filter", label, "--format", form).splitlines())
        return [name for service, name in listed if service in services]

    def ask(self, container: str, *argv: str, value: str, stdin: str | None = None) -> bool:
        """Whether a command in a container succeeds. VALUE, PGPASSWORD and REDISCLI_AUTH hold the value."""
        names = ("VALUE", "PGPASSWORD", "REDISCLI_AUTH")
        # rabbitmqctl ends with an error when it has a standard input that is no terminal.
        interactive = [] if stdin is None else ["-i"]
        line = ["docker", "exec", *interactive, *(f"--env={name}={value}" for name in names), container, *argv]
        return subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=120).returncode == 0

    # ── one question for each kind of secret ──────────────────────────────────────────────────────────────────────

    def accepts(self, name: str, value: str) -> bool | None:
        """Whether every part that keeps this secret accepts a value; None when nothing of the stack keeps it."""
        if name in ROLES:
            return self._postgres(*ROLES[name], value)
        if name in {"REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD"}:
            return self._redis("default" if name == "REDIS_PASSWORD" else "sentinel", value)
        if name in BROKER_USERS:
            (node,) = self.containers("rabbitmq")
            return self.ask(node, "rabbitmqctl", "authenticate_user", BROKER_USERS[name], value, value="")
        if name == "RABBITMQ_COOKIE":
            (node,) = self.containers("rabbitmq")
            return self.ask(node, "bash", "-c", _COOKIE, value="", stdin=value)
        if name == "PATRONI_PASSWORD":
            nodes = self.containers("postgres-primary", "postgres-replica")
            if not self.containers("etcd"):
                return None
            return _all(nodes, lambda node: self.ask(node, "bash", "-c", _PATRONI, value=value))
        if name in {"JWT_SECRET", "JWT_SECRET_PREVIOUS"}:
            return self._token(value)
        if name in SEARCH_USERS:
            return self._search(SEARCH_USERS[name], value)
        return None

    def _postgres(self, role: str, database: str, value: str) -> bool:
        nodes = self.containers("postgres-primary", "postgres-replica")
        argv = ("psql", "-X", "-w", "-h", "127.0.0.1", "-U", role, "-d", database, "-c", "select 1")
        return _all(nodes, lambda node: self.ask(node, *argv, value=value))

    def _redis(self, user: str, value: str) -> bool | None:
        nodes = [(each, "6379") for each in self.containers("redis-primary", "redis-replica")]
        sentinels = [(f"redis-sentinel-{number}", "26379") for number in (1, 2, 3)]
        found = [(each, port) for service, port in sentinels for each in self.containers(service)]
        if user == "sentinel" and not found:
            return None
        ping = 'test "$(redis-cli --no-auth-warning --user "$0" -p "$1" ping)" = PONG'
        return _all(nodes + found, lambda each: self.ask(each[0], "sh", "-c", ping, user, each[1], value=value))

    def _search(self, user: str, value: str) -> bool | None:
        nodes = self.containers("elasticsearch")
        url = "http://127.0.0.1:9200/_security/_authenticate"
        login = f'user = "{user}:{value}"\n'
        return _all(nodes, lambda node: self.ask(node, "curl", "-fsS", "-K", "-", url, value="", stdin=login))

    def _token(self, key: str) -> bool:
        """Whether api accepts a token signed with this key."""
        now = int(time.time())
        claims = {
            **{"sub": str(uuid.uuid4()), "email": "forged@example.com", "roles": [], "jti": uuid.uuid4().hex},
            **{"iat": now, "exp": now + 60, "iss": "auth-service", "aud": "stack"},
        }
        kid = hashlib.sha256(key.encode()).hexdigest()[:12]
        token = jwt.encode(claims, key, "HS256", headers={"kid": kid})
        with self.project.client(self.environment) as client:
            status = client.get("/api/v1/items", headers={"Authorization": f"Bearer {token}"}).status_code
        assert status in {200, 401}, status
        return status == 200


def _all(places: list, asked: Callable[..., bool]) -> bool | None:
    """True when all accept, False when none does; an error when they do not agree."""
    answers = {asked(place) for place in places}
    assert len(answers) <= 1, f"they do not agree: {json.dumps([str(each) for each in places])}"
    return answers.pop() if answers else None
