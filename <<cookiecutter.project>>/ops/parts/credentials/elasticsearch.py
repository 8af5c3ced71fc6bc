"""Passwords of Elasticsearch's users, which it reads from files and reads again every five seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ops import engine
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.parts.credentials.base import Credential

SERVICE = "elasticsearch"
USERS = {"ELASTIC_PASSWORD": "elastic", "KIBANA_PASSWORD": "kibana_system", "LOG_SHIPPER_PASSWORD": "log_shipper"}
_RELOAD_SECONDS = 60.0
_ASK = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-K", "-"]
_URL = "http://127.0.0.1:9200/_security/_authenticate"


@dataclass(frozen=True)
class User(Credential):
    """The password of a user."""

    user: str
    # It drops documents that are refused; what it has not read meanwhile waits in the log files.
    pauses: ClassVar[tuple[str, ...]] = ("otel-collector",)

    def switch(self, new: str) -> None:
        """Write the users again, and wait until the new password is accepted."""
        for each in self.holders:
            engine.exec_(each.id, ["bash", "/etc/elasticsearch-stack/users.sh"])
        if not until(lambda: all(self.accepts(new).values()), _RELOAD_SECONDS, 1):
            raise OpsError(f"{SERVICE} does not take the new password.", f"invoke logs --service {SERVICE}")

    def accepts(self, value: str) -> dict[str, bool]:
        """Log in over HTTP, from inside."""
        login = f"{self.user}:{value}".replace("\\", "\\\\").replace('"', '\\"')
        found = {}
        for each in self.holders:
            done = engine.exec_(each.id, [*_ASK, _URL], input=f'user = "{login}"\n', check=False)
            if done.stdout.strip() not in {"200", "401"}:
                raise OpsError(f"{SERVICE} cannot be asked: {done.stdout.strip()} {engine.reason(done.stderr)}")
            found[each.service] = done.stdout.strip() == "200"
        return found
