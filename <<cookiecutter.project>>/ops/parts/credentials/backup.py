"""The key of backups, which the repositories of every target keep in their own form.

It is added to each of them before the file changes, and the old one is removed after: what was saved stays readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ops import engine
from ops.base.errors import OpsError
from ops.parts.credentials.base import Credential

SERVICE = "wal-receiver"
SECRET = "BACKUP_KEY"
# A target that is far away, and two repositories at each.
_SECONDS = 600.0


@dataclass(frozen=True)
class Key(Credential):
    """The password of the repositories, told by way of the running WAL receiver."""

    in_volume: ClassVar[bool] = True
    keepers: ClassVar[tuple[str, ...]] = (SERVICE,)

    def both(self, new: str) -> None:
        """Add the new key at every target; all of them must answer."""
        self._tell("add", new)

    def only(self, new: str) -> None:
        """Remove every other key."""
        self._tell("only", new)

    def accepts(self, value: str) -> dict[str, bool]:
        """Whether a key opens every repository."""
        return {each.service: self._run(each.id, "try", value).code == 0 for each in self.holders}

    def _tell(self, what: str, value: str) -> None:
        for each in self.holders:
            self._run(each.id, what, value)

    def _run(self, container: str, what: str, value: str) -> engine.Completed:
        argv = ["python3", "-m", "ops.recovery", "key", what, "--json"]
        done = engine.exec_(container, argv, input=value, check=False, timeout=_SECONDS)
        # Only 4 says that the key does not open a repository.
        if not done.ok and not (what == "try" and done.code == 4):
            raise OpsError(f"The targets of backups: {engine.reason(done.stdout + done.stderr)}", "Run it again.")
        return done
