"""Which WAL a recovery reads, and how an end before the wanted moment is told."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

from ops.recovery.postgres import recover, server, wal
from ops.recovery.postgres.recover import Until
from ops.recovery.postgres.server import Stopped

NAME = "000000010000000000000003"
START = {"start": "0/3000028", "timeline": 1}


def segment(folder: Path, system: int, name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(struct.pack("=HHIQI4xQII", 0xD118, 2, 1, 0x3000000, 0, system, 1 << 24, 8192))
    return folder


def test_wal_of_a_database_that_was_made_anew_is_not_read(tmp_path: Path) -> None:
    """On the machine after the lost one, both have a file of this name."""
    mine, other = segment(tmp_path / "a/stream", 7), segment(tmp_path / "b/stream", 8)
    empty = tmp_path / "c/stream"
    empty.mkdir(parents=True)
    (empty / f"{NAME}.partial").write_bytes(bytes(100))
    (empty / "00000002.history").write_text("1")
    assert recover.of_system([other, mine, empty, tmp_path / "none"], 7) == [mine, empty]


def test_the_system_of_a_segment(tmp_path: Path) -> None:
    assert wal.system_of(segment(tmp_path, 7712590517196087328) / NAME) == 7712590517196087328
    (tmp_path / "short").write_bytes(b"\0" * 31)
    assert wal.system_of(tmp_path / "short") == 0


def test_why_a_server_ended_is_not_what_it_told_those_who_asked_meanwhile() -> None:
    log = "FATAL:  the database system is starting up\nFATAL:  recovery ended too soon.\n"
    assert server.reason(log) == "recovery ended too soon"


def test_a_moment_that_is_too_late_is_told_with_the_last_one(tmp_path: Path) -> None:
    until = Until(datetime(2026, 11, 26, 23, 0, tzinfo=UTC))
    reaches = datetime(2026, 11, 26, 21, 24, tzinfo=UTC)
    stopped = Stopped("recovery ended before configured recovery target was reached")
    error = recover._explained(stopped, [segment(tmp_path, 7)], START, until, reaches)
    assert "WAL ends before 2026-11-26 23:00:00+00:00" in error.message
    assert "up to 2026-11-26 21:24:00 UTC" in error.message and "000000010000000000000004" in error.message
    other = Stopped("out of memory")
    assert recover._explained(other, [], START, until, reaches) is other
