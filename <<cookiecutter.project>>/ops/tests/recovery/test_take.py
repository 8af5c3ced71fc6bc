"""What a run that takes an entry does around its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.recovery import catalogue, take
from ops.recovery.catalogue import Catalogue, Entry, Verification
from ops.recovery.repository import Unreachable
from ops.recovery.settings import Keep, Paths, Settings, Target
from ops.tests.recovery.test_recovery_catalogue import entry, run_of

TAKEN = entry(run_of(1)[0].began)


@dataclass
class Run:
    """A run whose repositories only note what they are asked. found: the catalogue of the first target; away: what a
    target raises when something is copied to it, by its location."""

    settings: Settings
    found: Catalogue = Catalogue()
    away: dict[str, OpsError] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    previous: Entry | None = None

    def repository(self, _settings: Settings, target: Target, kind: str) -> Any:
        steps = self.steps

        class Repository:
            location = f"{target.location}/{kind}"

            def __init__(self) -> None:
                self.target, self.settings, self.place = target, _settings, kind

            def ensure(self, _like: object = None) -> None:
                steps.append(f"ensure {self.location}")

            def give_up_lost(self) -> None:
                steps.append(f"give up {self.location}")

            def repair(self, work: Path) -> list[str]:
                assert work.is_dir()
                steps.append("repair")
                return ["abc"]

            def prune(self) -> bool:
                steps.append(f"prune {self.location}")
                return True

        return Repository()

    def entry(self, _settings: Settings, _repository: object, previous: Entry | None) -> Entry:
        self.previous = previous
        self.steps.append("entry")
        return TAKEN

    def copy(self, _first: object, other: Any) -> int:
        self.steps.append(f"copy to {other.location}")
        if other.target.location in self.away:
            raise self.away[other.target.location]
        return 1


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    paths = Paths(cache=tmp_path / "cache", scratch=tmp_path / "scratch", wal=tmp_path)
    settings = Settings("prod", "acme", (Target("/backups"), Target("/other")), 30, 7, Keep(7, 4, 6), paths=paths)
    run = Run(settings)
    replaced: tuple[tuple[object, str, Callable[..., Any]], ...] = (
        (take, "Repository", run.repository),
        (take, "_entry", run.entry),
        (catalogue, "read", lambda _: run.found),
        (catalogue, "remove_unfinished", lambda _: run.steps.append("remove unfinished")),
        (catalogue, "copy_missing", run.copy),
        (catalogue, "remove_expired", lambda each, _: frozenset({"x"} if each.target.location == "/other" else ())),
    )
    for module, name, value in replaced:
        monkeypatch.setattr(module, name, value)
    return run


def test_an_entry_is_copied_and_what_has_expired_is_removed(run: Run) -> None:
    assert take.take(run.settings) == TAKEN
    assert run.steps == [
        *("ensure /backups/backups", "remove unfinished", "entry"),
        *("ensure /other/backups", "copy to /other/backups", "prune /other/backups"),
    ]


def test_an_entry_that_could_not_be_copied_is_told_and_stays(run: Run) -> None:
    run.away["/other"] = Unreachable("/other/backups", "/other cannot be reached.")
    with pytest.raises(
        OpsError, match=f"Entry {TAKEN.id} was taken. It was not copied: /other cannot be reached."
    ) as it:
        take.take(run.settings)
    assert "The next run copies" in it.value.remedy and "prune /other/backups" in run.steps


def test_a_damaged_target_is_repaired_once_and_a_full_backup_follows(run: Run) -> None:
    found = run_of(3, last=catalogue.moment(4_000_000_000))
    run.found = Catalogue(tuple(found))
    take.take(run.settings)
    assert run.previous == found[-1]
    failed = Verification(found[0].id, 1.0, 1.0, False, ("postgres: /backups/backups is damaged: a pack.",), 1)
    run.found = Catalogue(tuple(found), (failed,))
    for times in (1, 2):
        take.take(run.settings)
        assert run.previous is None
        assert run.steps.count("repair") == 1, times
    assert run.steps.index("repair") < len(run.steps) - 1 - run.steps[::-1].index("entry")


def test_a_lost_repository_is_given_up_on_request_only(run: Run) -> None:
    take.take(run.settings)
    assert not any(each.startswith("give up") for each in run.steps)
    take.take(run.settings, init=True)
    given_up = [each for each in run.steps if each.startswith("give up")]
    assert given_up == [f"give up {target}/{kind}" for target in ("/backups", "/other") for kind in ("backups", "wal")]


def test_only_one_run_takes_an_entry(run: Run) -> None:
    with (
        take.alone(run.settings),
        pytest.raises(OpsError, match="already") as refused,
    ):
        take.take(run.settings)
    assert refused.value.code == REFUSED and run.steps == []
    take.take(run.settings)


def test_a_broker_that_cannot_be_asked_is_named_and_not_in_the_entry(run: Run, tmp_path: Path) -> None:
    closed = replace(run.settings, rabbitmq_hosts=("rabbitmq",), rabbitmq_closed="nobody may ask for its definitions")
    files = take._Files()
    take._servers(closed, tmp_path, files)
    assert "RabbitMQ: nobody may ask for its definitions" in files.left_out and take.RABBITMQ not in files.details
    without = take._Files()
    take._servers(replace(closed, rabbitmq_hosts=()), tmp_path, without)
    assert "RabbitMQ: the stack has none" in without.left_out
