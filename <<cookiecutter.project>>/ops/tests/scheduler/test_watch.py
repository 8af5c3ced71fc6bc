"""What the scheduler decides, over recorded moments. It is noon at 43,200 s; the job runs at every full hour."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.scheduler.schedule import Schedule
from ops.scheduler.watch import Action, Job, Watch

HOUR = 3600
NOON = 12 * HOUR
HOURLY = Schedule("0 * * * *", limit=1800)
# Made at 09:30, ran at 11:00 for ten seconds.
JOB = Job("1", "report", HOURLY, created=9.5 * HOUR, started=11 * HOUR, finished=11 * HOUR + 10)
NEW = Job("1", "report", HOURLY, created=11.5 * HOUR)
START, STOP, NOTHING = Action.START, Action.STOP, Action.NOTHING


def watching(job: Job = JOB) -> Watch:
    """A scheduler that saw the job shortly before noon."""
    watch = Watch()
    assert watch.decide(job, NOON - 1) == NOTHING
    return watch


def running(since: float, schedule: Schedule = HOURLY) -> Job:
    return replace(JOB, schedule=schedule, running=True, started=since, finished=0)


@pytest.mark.parametrize("job", [JOB, NEW])
def test_it_starts_at_its_time_and_once(job: Job) -> None:
    watch = watching(job)
    assert watch.decide(job, NOON) == START
    # even when the engine has not noticed yet, or refused
    assert watch.decide(job, NOON + 1) == NOTHING
    assert watch.decide(job, NOON + HOUR) == START
    assert (watch.missed, watch.skipped) == (0, 0)


def test_a_scheduler_that_begins_just_after_the_time_starts_it() -> None:
    assert Watch().decide(JOB, NOON + 59) == START


def test_one_that_has_run_is_not_run_again_by_a_new_scheduler() -> None:
    assert Watch().decide(replace(JOB, started=NOON, finished=NOON + 3), NOON + 5) == NOTHING


def test_one_that_was_missed_waits_for_its_next_time() -> None:
    watch = Watch()
    assert watch.decide(JOB, NOON + 61) == NOTHING
    assert (watch.missed, watch.last_missed) == (1, NOON)
    assert watch.decide(JOB, NOON + 62) == NOTHING
    assert watch.missed == 1
    assert watch.decide(JOB, NOON + HOUR) == START


def test_one_that_was_missed_is_made_up_for_once() -> None:
    """However many times were missed."""
    job = replace(JOB, schedule=replace(HOURLY, missed="run"))
    watch = Watch()
    assert watch.decide(job, NOON + 5 * HOUR + 600) == START
    assert watch.missed == 1
    assert watch.decide(job, NOON + 5 * HOUR + 601) == NOTHING


def test_a_scheduler_that_the_engine_did_not_answer_for_a_while_knows_that_it_missed_something() -> None:
    watch = watching()
    assert watch.decide(JOB, NOON + 600) == NOTHING
    assert watch.missed == 1


def test_what_was_missed_before_one_that_is_in_time_is_counted() -> None:
    watch = Watch()
    assert watch.decide(JOB, NOON + HOUR + 20) == START
    assert (watch.missed, watch.last_missed) == (1, NOON)


def test_a_new_job_has_missed_nothing() -> None:
    watch = Watch()
    assert watch.decide(replace(NEW, created=NOON + 100), NOON + 600) == NOTHING
    assert watch.missed == 0


def test_another_schedule_does_not_look_back() -> None:
    """A deploy makes a new container for it; its times before that are nobody's."""
    watch = watching()
    changed = replace(NEW, schedule=Schedule("50 * * * *"), created=NOON - 0.5)
    assert watch.decide(changed, NOON + 10) == NOTHING
    assert watch.missed == 0


def test_one_that_still_runs_is_skipped() -> None:
    watch = watching()
    assert watch.decide(running(NOON - 60), NOON) == NOTHING
    assert watch.skipped == 1
    assert watch.decide(replace(JOB, finished=NOON + 5), NOON + 6) == NOTHING


def test_one_that_still_runs_is_waited_for() -> None:
    schedule = replace(HOURLY, overlap="wait")
    watch = watching(replace(JOB, schedule=schedule))
    assert watch.decide(running(NOON - 60, schedule), NOON) == NOTHING
    assert watch.decide(running(NOON - 60, schedule), NOON + 300) == NOTHING
    ended = replace(JOB, schedule=schedule, finished=NOON + 301)
    assert watch.decide(ended, NOON + 302) == START
    assert watch.decide(ended, NOON + 303) == NOTHING
    assert watch.skipped == 0


def test_one_that_ran_through_its_time_has_not_missed_it() -> None:
    """A new scheduler finds a job that ran from 11:00 to 12:20: noon was skipped, and that was counted then."""
    watch = Watch()
    assert watch.decide(replace(JOB, finished=NOON + 1200), NOON + 1300) == NOTHING
    assert watch.missed == 0


def test_it_is_stopped_after_its_limit_and_once() -> None:
    watch = watching()
    job = running(NOON + 1)
    watch.decide(job, NOON + 2)
    assert watch.decide(job, NOON + 1800) == NOTHING
    assert watch.decide(job, NOON + 1802) == STOP
    assert watch.decide(job, NOON + 1803) == NOTHING
    assert watch.overruns == 1


def test_a_limit_holds_for_one_that_a_scheduler_before_started() -> None:
    assert Watch().decide(running(NOON), NOON + 1801) == STOP


def test_without_a_limit_it_is_never_stopped() -> None:
    assert Watch().decide(running(NOON, replace(HOURLY, limit=0)), NOON + 40 * HOUR) == NOTHING


def test_what_was_missed_can_be_told_from_the_container_alone() -> None:
    assert JOB.missed(NOON + 60) == 0
    assert JOB.missed(NOON + 61) == NOON
    # also while the next time may still be met, as always for a job of every minute
    assert JOB.missed(NOON + HOUR + 30) == NOON
    assert running(NOON - 5).missed(NOON + 600) == 0
    assert NEW.missed(NOON - 5) == 0
