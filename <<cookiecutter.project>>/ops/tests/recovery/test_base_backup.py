"""A backup of PostgreSQL while its servers come and go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops.recovery import catalogue
from ops.recovery.postgres import base, client
from ops.recovery.postgres.client import Unanswered
from ops.recovery.repository import CommandFailed
from ops.recovery.settings import Keep, Paths, Settings, Target
from ops.tests.recovery.test_recovery_catalogue import NOON, entry


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the module, which passes only while somebody sleeps."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = Paths(scratch=tmp_path / "scratch", memory=tmp_path)
    return Settings("prod", "acme", (Target("/backups"),), 30, 7, Keep(7, 4, 6), paths=paths)


class Repository:
    """A repository that saves nothing while the primary is gone. commands: what it was asked to run."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.commands: list[list[str]] = []

    def save_output(self, argv: list[str], _name: str, _tags: Any) -> str:
        self.commands.append(argv)
        if len(self.commands) <= self.failures:
            raise CommandFailed("/backups", "no primary")
        Path(argv[3]).write_text("the manifest", encoding="utf-8")
        return "abc"

    def snapshots(self, _tags: Any) -> list[Any]:
        return [type("Saved", (), {"id": "manifest"})()]

    def text(self, _id: str, _path: str) -> str:
        return "an earlier manifest"


def saved(settings: Settings, repository: Any, previous: catalogue.Entry | None = None) -> tuple[str, str, bool]:
    snapshot, manifest, built_on = base._saved(settings, repository, "an id", previous)
    return snapshot, manifest, built_on is not None


def test_a_backup_outlasts_a_failover(settings: Settings, clock: list[float]) -> None:
    repository = Repository(40)
    assert saved(settings, repository) == ("abc", "the manifest", False)
    assert 100 < clock[0] < client.PATIENCE_SECONDS


def test_a_primary_that_stays_away_fails_it(settings: Settings, clock: list[float]) -> None:
    with pytest.raises(CommandFailed, match="no primary"):
        saved(settings, Repository(1000))
    assert client.PATIENCE_SECONDS <= clock[0] < client.PATIENCE_SECONDS + 60


def test_a_full_backup_is_taken_where_an_incremental_one_is_impossible(settings: Settings, clock: list[float]) -> None:
    repository = Repository(0)
    assert saved(settings, repository, entry(NOON)) == ("abc", "the manifest", True)
    repository = Repository(1)
    assert saved(settings, repository, entry(NOON)) == ("abc", "the manifest", False)
    incremental, full = repository.commands
    assert incremental[:-1] == full and incremental[-1].startswith("--incremental=") and clock[0] == 0


def test_what_takes_long_itself_is_tried_more_than_once(clock: list[float]) -> None:
    attempts = []

    def work() -> str:
        attempts.append(clock[0])
        clock[0] += 1000
        if len(attempts) < client.LEAST_ATTEMPTS:
            raise Unanswered("a conflict with recovery")
        return "done"

    assert client.patiently(work) == "done"
