"""What is said of a backup of PostgreSQL that comes back damaged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest

from ops.base.errors import OpsError
from ops.recovery import catalogue
from ops.recovery.catalogue import Entry, Part
from ops.recovery.postgres import recover
from ops.recovery.repository import Damaged

MOMENT = datetime(2026, 11, 22, tzinfo=UTC)
ENTRY = Entry("20261122T000000Z", MOMENT, MOMENT, {catalogue.POSTGRES: Part(catalogue.POSTGRES, "abc")})


class Target:
    """Gives back some bytes, and then perhaps an error."""

    def __init__(self, content: bytes, error: Exception | None = None) -> None:
        self.content, self.error = content, error

    def dump(self, _id: str, _path: str, sink: IO[bytes]) -> None:
        sink.write(self.content)
        if self.error:
            raise self.error


def unpack(target: Any, into: Path) -> None:
    recover._unpack(target, ENTRY, into)


def test_the_target_says_what_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It ends at once, with its input unread.
    monkeypatch.setattr(recover.subprocess.Popen, "kill", lambda child: (child.terminate(), child.wait()))
    with pytest.raises(Damaged, match="a blob is missing"):
        unpack(Target(b"x" * 100, Damaged("/backups", "a blob is missing.")), tmp_path)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="20261122T000000Z cannot be unpacked: .*tar"):
        unpack(Target(b"x" * (1 << 20)), tmp_path)
