"""What there is at targets, for people and for Prometheus."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.recovery import catalogue, listing
from ops.recovery.catalogue import Catalogue
from ops.recovery.listing import Place, Watch
from ops.recovery.repository import Missing, Repository
from ops.recovery.settings import Keep, Paths, Settings, Target
from ops.tests.recovery.test_recovery_catalogue import NOON, entry, proof, run_of

LATER = NOON + timedelta(hours=1)


@pytest.fixture
def settings(tmp_path) -> Settings:
    paths = Paths(wal=tmp_path, cache=tmp_path)
    return Settings("prod", "acme", (Target("/backups"), Target("/other")), 30, 7, Keep(7, 4, 6), paths=paths)


def values(metrics) -> dict[tuple[str, str], float]:
    return {(each.name, labels.get("target", "")): value for each in metrics for labels, value in each.samples}


def test_moments_from_the_oldest_good_entry_to_the_newest_wal_can_be_recovered() -> None:
    found = run_of(3)
    state = Catalogue(tuple(found))
    assert listing.window(state, LATER, ()) == (found[0].ended, LATER)
    assert listing.window(Catalogue(tuple(found), (proof(found[0], False),)), LATER, ()) == (found[1].ended, LATER)
    # What was written after the loss builds on an entry that was taken after it.
    assert listing.window(state, LATER, [found[1].began.timestamp() + 1]) == (found[2].ended, LATER)
    assert listing.window(state, LATER, [LATER.timestamp()]) is None
    assert listing.window(state, None, ()) is None
    assert listing.window(Catalogue((entry(NOON, database=False),)), LATER, ()) is None
    assert listing.window(state, found[0].ended, ()) is None


def test_a_report_has_every_target_and_the_error_of_one_that_is_away(settings, monkeypatch) -> None:
    found = run_of(2)
    state = Catalogue(tuple(found), (proof(found[0], True), proof(found[1], False)))
    places = {
        "/backups": Place("/backups", state, LATER),
        "/other": Place("/other", error="It is away.", remedy="Call it back."),
    }
    monkeypatch.setattr(listing, "look", lambda _, target: places[target.location])
    here, away = listing.report(settings)["targets"]
    assert [each["id"] for each in here["entries"]] == [found[1].id, found[0].id]
    assert here["window"] == {"from": found[0].ended.isoformat(), "until": LATER.isoformat()}
    assert here["entries"][0]["verification"]["problems"] == ["a row"] and here["entries"][1]["verification"]["good"]
    assert (away["error"], away["entries"], away["window"]) == ("It is away.", [], None)


def test_a_target_that_does_not_answer_is_told_by_its_error(settings, monkeypatch) -> None:
    def away(_repository) -> Catalogue:
        raise OpsError("It is away.", "Call it back.")

    monkeypatch.setattr(catalogue, "read", away)
    assert listing.look(settings, settings.targets[0]) == Place("/backups", error="It is away.", remedy="Call it back.")


def test_a_target_that_has_no_backup_yet_is_not_away(settings, monkeypatch) -> None:
    def none(repository) -> Catalogue:
        raise Missing(repository.location, "There is no repository.")

    monkeypatch.setattr(catalogue, "read", none)
    monkeypatch.setattr(Repository, "exists", lambda _: False)
    assert listing.look(settings, settings.targets[0]) == Place("/backups")


def test_metrics_keep_what_was_there_while_a_target_is_away(settings, monkeypatch) -> None:
    found = run_of(2)
    state = Catalogue(tuple(found), (proof(found[0], True),), restored={"another machine": NOON})
    places = {"/backups": Place("/backups", state, LATER), "/other": Place("/other")}
    monkeypatch.setattr(listing, "look", lambda _, target: places[target.location])
    watch = Watch(settings)
    assert list(watch.metrics())[:-1] == []
    watch.look()
    places["/backups"] = Place("/backups", error="It is away.")
    for up in (1.0, 0.0):
        seen = values(watch.metrics())
        assert seen["backup_target_up", "/backups"] == up
        assert seen["backup_last_timestamp_seconds", "/backups"] == found[1].ended.timestamp()
        assert seen["backup_verified_timestamp_seconds", "/backups"] == found[0].ended.timestamp()
        assert seen["backup_last_timestamp_seconds", "/other"] == 0
        assert ("backup_verified_timestamp_seconds", "/other") not in seen
        assert seen["backup_key_tried_timestamp_seconds", ""] == NOON.timestamp()
        watch.look()


def test_a_restore_on_this_machine_proves_nothing_of_the_kept_key(settings) -> None:
    here = Place("/backups", Catalogue(restored={catalogue.machine(settings): datetime.now(UTC)}))
    assert listing.tried(settings, [here]) == 0.0


def test_a_target_that_has_lost_its_repository_is_no_empty_one(settings, monkeypatch) -> None:
    monkeypatch.setattr(Repository, "listing", lambda _: (_ for _ in ()).throw(Missing("/backups", "There is none.")))
    monkeypatch.setattr(Repository, "exists", lambda _: False)
    place = listing.look(settings, settings.targets[0])
    assert (place.error, place.found) == ("", Catalogue())
    monkeypatch.setattr(Repository, "_run", lambda *_, **__: "")
    Repository(settings, settings.targets[0], "backups").ensure()
    place = listing.look(settings, settings.targets[0])
    assert "there was one before" in place.error and "invoke backup --init" in place.remedy
    assert listing.look(settings, settings.targets[1]).error == ""


def test_what_this_machine_changes_is_seen_at_once(settings, monkeypatch) -> None:
    """Somebody who takes a backup and asks for the health must not read that there is none."""
    looks = []
    looked_again = threading.Event()

    def look(_settings, target):
        looks.append(target.location)
        if len(looks) > len(settings.targets):
            looked_again.set()
            threading.Event().wait()  # for ever: the thread ends with the tests
        return Place(target.location)

    monkeypatch.setattr(listing, "look", look)
    monkeypatch.setattr(listing, "_NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(Repository, "save_text", lambda *_: "")
    threading.Thread(target=Watch(settings).run, daemon=True).start()
    assert until(lambda: len(looks) == len(settings.targets), 5, 0.01)
    assert not looked_again.wait(0.1)
    catalogue.commit(Repository(settings, settings.targets[0], "backups"), entry(NOON))
    assert looked_again.wait(5)
