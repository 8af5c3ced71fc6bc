"""How scheduled jobs stand. It is noon on 1 January 1970; the job runs at every full hour."""

from __future__ import annotations

import pytest

from ops.parts import jobs
from ops.stack.model import Service

NOON = 12 * 3600
LABELS = {"ops.schedule": "0 * * * *", "ops.schedule.limit": "600"}
REPORT = Service("report", "acme/report:1", one_shot=True, labels=LABELS)
RAN = {"state": "exited", "health": "", "created": 1000.0, "started": NOON - 3600, "finished": NOON - 3590}


def stands(make_stack, *containers, now: float = NOON - 60) -> jobs.Standing:
    (found,) = jobs.standings(make_stack(REPORT, Service("web", "x")), containers, now)
    return found


@pytest.mark.parametrize(
    ("changes", "status", "result"),
    [
        ({}, "ok", "succeeded"),
        ({"exit_code": 3}, "fail", "failed with exit code 3"),
        ({"exit_code": 137, "oom_killed": True}, "fail", "failed: out of memory, its limit is too low"),
        ({"exit_code": 137}, "fail", "failed with exit code 137"),
        ({"exit_code": 143, "finished": NOON - 2995}, "fail", "failed: it was stopped after its limit of 600 s"),
        ({"error": "no such mount", "exit_code": 127}, "fail", "could not be started: no such mount"),
        ({"state": "created", "started": 0.0, "finished": 0.0}, "warn", "missed its time 1970-01-01 11:00 UTC"),
        ({"state": "created", "started": 0.0, "finished": 0.0, "created": NOON - 100}, "ok", "has not run yet"),
        ({"state": "running", "started": NOON - 300}, "ok", "running"),
        ({"state": "running"}, "warn", "running for longer than its limit of 600 s"),
    ],
)
def test_how_a_job_stands(make_stack, make_container, changes: dict, status: str, result: str) -> None:
    found = stands(make_stack, make_container("report", labels=LABELS, **{**RAN, **changes}))
    assert found.status == status
    assert found.result.startswith(result)
    assert found.following == "1970-01-01 12:00 UTC"


def test_when_it_ran_and_how_long(make_stack, make_container) -> None:
    found = stands(make_stack, make_container("report", labels=LABELS, **RAN))
    assert (found.last, found.took) == ("1970-01-01 11:00 UTC", 10)


def test_its_clock_is_that_of_its_time_zone(make_stack, make_container) -> None:
    labels = {**LABELS, "ops.schedule.timezone": "Asia/Tokyo"}
    assert stands(make_stack, make_container("report", labels=labels, **RAN)).following == "1970-01-01 21:00 Asia/Tokyo"


def test_one_that_missed_its_time_while_nobody_looked(make_stack, make_container) -> None:
    found = stands(make_stack, make_container("report", labels=LABELS, **RAN), now=NOON + 3000)
    assert (found.status, found.result) == (
        "warn",
        "missed its time 1970-01-01 12:00 UTC: the scheduler was not running",
    )


def test_a_failure_does_not_hide_that_it_missed_its_time_as_well(make_stack, make_container) -> None:
    container = make_container("report", labels=LABELS, **{**RAN, "exit_code": 3})
    found = stands(make_stack, container, now=NOON + 3000)
    assert (found.status, found.result) == (
        "fail",
        "failed with exit code 3; missed its time 1970-01-01 12:00 UTC: the scheduler was not running",
    )


def test_one_that_was_never_made(make_stack, make_container) -> None:
    assert stands(make_stack).status == "fail"
    assert stands(make_stack, make_container("report", labels={})).status == "warn"


def test_for_health(make_stack, make_container) -> None:
    (check,) = jobs.checks(make_stack(REPORT), [make_container("report", labels=LABELS, **RAN)], NOON - 60)
    assert (check.name, check.target, check.status) == ("job", "report", "ok")
    assert check.detail == "succeeded (1970-01-01 11:00 UTC, took 10 s); next run 1970-01-01 12:00 UTC"
