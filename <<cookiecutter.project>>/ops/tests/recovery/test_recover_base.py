"""What is said of a backup of PostgreSQL that comes back damaged."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from ops.base.errors import REFUSED, OpsError
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


@pytest.mark.usefixtures("_in_time")
def test_an_archive_of_which_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    """As on a full disk: tar complains of every file, which is more than a pipe holds, and reads on."""
    (tmp_path / "base").write_text("where a folder should be")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(2000):
            tar.addfile(tarfile.TarInfo(f"base/{number:060d}"))
    with pytest.raises(OpsError, match="20261122T000000Z cannot be unpacked: .*tar"):
        unpack(Target(archive.getvalue()), tmp_path)


@pytest.mark.parametrize(("version", "refused"), [(180006, False), (180000, False), (170009, True), (190001, True)])
def test_files_of_another_major_are_refused(monkeypatch: pytest.MonkeyPatch, version: int, refused: bool) -> None:
    here = SimpleNamespace(stdout="postgres (PostgreSQL) 18.6 (Debian 18.6-1.pgdg13+1)\n")
    monkeypatch.setattr(recover, "subprocess", SimpleNamespace(run=lambda *_, **__: here))
    if not refused:
        recover._refuse_other_major(version)
        return
    with pytest.raises(OpsError, match=f"of PostgreSQL {version // 10000}, and this image is PostgreSQL 18") as caught:
        recover._refuse_other_major(version)
    assert caught.value.code == REFUSED and "POSTGRES_IMAGE" in caught.value.remedy
