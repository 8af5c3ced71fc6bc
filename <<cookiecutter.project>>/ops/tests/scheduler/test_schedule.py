from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.scheduler import schedule
from ops.scheduler.schedule import Schedule, ScheduleError


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def says(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%a %Y-%m-%d %H:%M:%S")


def refused(**labels: str) -> ScheduleError:
    names = {f"ops.schedule.{key}" if key != "schedule" else "ops.schedule": value for key, value in labels.items()}
    with pytest.raises(ScheduleError) as caught:
        schedule.parse(names)
    assert caught.value.remedy
    return caught.value


def test_no_label_is_no_schedule() -> None:
    assert schedule.parse({"ops.port": "80"}) is None


def test_what_is_not_said_is_the_careful_choice() -> None:
    assert schedule.parse({"ops.schedule": " 0  3 * * * "}) == Schedule("0 3 * * *", "UTC", "skip", "skip", 3600)


def test_all_of_it_can_be_said() -> None:
    labels = {
        "ops.schedule": "*/5 * * * *",
        "ops.schedule.timezone": "Europe/Berlin",
        "ops.schedule.overlap": "wait",
        "ops.schedule.missed": "run",
        "ops.schedule.limit": "0",
    }
    assert schedule.parse(labels) == Schedule("*/5 * * * *", "Europe/Berlin", "wait", "run", 0)


def test_after_and_before_do_not_overlap() -> None:
    every_hour = Schedule("0 * * * *")
    noon = at("2026-03-01T12:00:00")
    assert every_hour.after(noon) == noon + 3600
    assert every_hour.after(noon - 0.5) == noon
    assert every_hour.before(noon) == noon
    assert every_hour.before(noon + 0.5) == noon
    assert every_hour.before(noon - 0.5) == noon - 3600


@pytest.mark.parametrize(
    ("expression", "following"),
    [
        ("0 3 * * 0", "Sun 2026-03-08 03:00:00"),
        ("0 3 * * 7", "Sun 2026-03-08 03:00:00"),
        ("0 3 * * MON", "Mon 2026-03-02 03:00:00"),
        # a day of the month and a day of the week: either is enough
        ("0 3 13 * 5", "Fri 2026-03-06 03:00:00"),
        ("0 0 29 2 *", "Tue 2028-02-29 00:00:00"),
    ],
)
def test_expressions_mean_what_they_mean_to_cron(expression: str, following: str) -> None:
    assert says(Schedule(expression).after(at("2026-03-01T12:00:00"))) == following


def test_the_clock_of_the_time_zone_counts() -> None:
    berlin = Schedule("0 3 * * *", "Europe/Berlin")
    assert says(berlin.after(at("2026-01-01T12:00:00"))) == "Fri 2026-01-02 02:00:00"
    assert says(berlin.after(at("2026-07-01T12:00:00"))) == "Thu 2026-07-02 01:00:00"


def test_a_time_that_the_clocks_leave_out_or_repeat_runs_once() -> None:
    """On 29 March 2026 there is no 02:30 in Berlin; on 25 October there are two."""
    berlin = Schedule("30 2 * * *", "Europe/Berlin")
    spring = berlin.after(at("2026-03-28T12:00:00"))
    assert says(spring) == "Sun 2026-03-29 01:00:00"
    assert says(berlin.after(spring)) == "Mon 2026-03-30 00:30:00"
    autumn = berlin.after(at("2026-10-24T12:00:00"))
    assert says(autumn) == "Sun 2026-10-25 00:30:00"
    assert says(berlin.after(autumn)) == "Mon 2026-10-26 01:30:00"


@pytest.mark.parametrize("expression", ["0 3 30 2 *", "0 0 31 2,4,6 *"])
def test_one_that_never_comes_is_refused(expression: str) -> None:
    assert f'"{expression}" never comes' in refused(schedule=expression).problem


@pytest.mark.parametrize("expression", ["61 * * * *", "0 3 32 * *", "0 3 * * frid", "0 3 0 * *", "*/0 * * * *"])
def test_one_that_is_none_is_refused(expression: str) -> None:
    assert "is not a cron expression: bad" in refused(schedule=expression).problem


@pytest.mark.parametrize(("expression", "fields"), [("", 0), ("@daily", 1), ("0 3 * *", 4), ("0 0 3 * * *", 6)])
def test_five_fields_are_wanted(expression: str, fields: int) -> None:
    assert f"has {fields} fields instead of five" in refused(schedule=expression).problem


@pytest.mark.parametrize("zone", ["Europe/Berln", "CEST+1", "", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    assert f'no time zone "{zone}"' in refused(schedule="0 3 * * *", timezone=zone).problem


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"overlap": "kill"}, 'overlap must be skip or wait, not "kill"'),
        ({"missed": "yes"}, 'missed must be skip or run, not "yes"'),
        ({"limit": "1h"}, 'limit must be a whole number of seconds, not "1h"'),
    ],
)
def test_what_else_can_be_wrong_is_named(labels: dict[str, str], words: str) -> None:
    assert words in refused(schedule="0 3 * * *", **labels).problem


def test_an_option_without_a_schedule_is_refused() -> None:
    assert "ops.schedule.limit is set, and ops.schedule is not" in refused(limit="60").problem
