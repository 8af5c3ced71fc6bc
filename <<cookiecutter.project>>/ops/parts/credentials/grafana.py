"""The password of Grafana's administrator, which it keeps in its database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ops import engine
from ops.base.errors import OpsError
from ops.parts.credentials.base import Credential

SERVICE = "grafana"
_RESET = ["grafana", "cli", "--homepath=/usr/share/grafana", "admin", "reset-admin-password", "--password-from-stdin"]
_ASK = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-K", "-", "http://127.0.0.1:3000/api/user"]


@dataclass(frozen=True)
class Admin(Credential):
    """The password of `admin`."""

    in_volume: ClassVar[bool] = True

    def switch(self, new: str) -> None:
        """Change it in the database."""
        for each in self.holders:
            engine.exec_(each.id, _RESET, input=new)

    def accepts(self, value: str) -> dict[str, bool]:
        """Log in over HTTP, from inside."""
        login = f"admin:{value}".replace("\\", "\\\\").replace('"', '\\"')
        found = {}
        for each in self.holders:
            done = engine.exec_(each.id, _ASK, input=f'user = "{login}"\n', check=False)
            if done.stdout.strip() not in {"200", "401"}:
                raise OpsError(f"{SERVICE} cannot be asked: {done.stdout.strip()} {engine.reason(done.stderr)}")
            found[each.service] = done.stdout.strip() == "200"
        return found
