"""When a scheduled job runs, as the labels of its service say: read alike by the commands and the scheduler.

Cron expressions mean what they mean to Debian's cron: 0 and 7 are Sunday, and where both a day of the month and of the
week are given, either is enough.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

LABEL = "ops.schedule"

SKIP, WAIT, RUN = "skip", "wait", "run"
# A job that hangs would keep all later runs from starting, hence a limit even where nobody sets one.
LIMIT_SECONDS = 3600
# A run that starts within so many seconds of its time is in time: the scheduler may be restarted in that moment.
GRACE_SECONDS = 60


class ScheduleError(ValueError):
    """Labels that say no schedule. remedy: what to write instead."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Schedule:
    """When a job runs. Times are seconds since the epoch.

    expression: five fields of cron; overlap: at a time when it still runs, `skip` or `wait` for its end; missed: a time
    at which the scheduler was away, `skip` it or `run` the job once when it is back; limit: seconds after which it is
    stopped, 0 for none.
    """

    expression: str
    timezone: str = "UTC"
    overlap: str = SKIP
    missed: str = SKIP
    limit: int = LIMIT_SECONDS

    def after(self, moment: float) -> float:
        """The first time to run after a moment."""
        return next(self._times(moment)).timestamp()

    def before(self, moment: float) -> float:
        """The last time to run until a moment, that included; 0 when there was none in fifty years."""
        found = next(self._times(int(moment) + 1, reverse=True), None)
        return found.timestamp() if found else 0.0

    def _times(self, moment: float, reverse: bool = False) -> Iterator[datetime]:
        return CronSim(self.expression, datetime.fromtimestamp(moment, ZoneInfo(self.timezone)), reverse=reverse)


def parse(labels: Mapping[str, str]) -> Schedule | None:
    """The schedule that the labels of a service or a container say; None when they say none.

    Options that do not exist are left to ops/stack/contract.py. Raises ScheduleError when the others do not make sense,
    or when it would never run.
    """
    options = {key.removeprefix(f"{LABEL}."): value for key, value in labels.items() if key.startswith(f"{LABEL}.")}
    if LABEL not in labels:
        if options:
            raise ScheduleError(
                f"{LABEL}.{min(options)} is set, and {LABEL} is not", f'Add {LABEL}, such as "0 3 * * *", or remove it.'
            )
        return None
    _refuse_other(options, "overlap", (SKIP, WAIT))
    _refuse_other(options, "missed", (SKIP, RUN))
    limit = options.get("limit", str(LIMIT_SECONDS))
    if not (limit.isascii() and limit.isdigit()):
        raise ScheduleError(
            f'{LABEL}.limit must be a whole number of seconds, not "{limit}"', "For example 3600; 0 is no limit."
        )
    found = Schedule(
        " ".join(labels[LABEL].split()),
        options.get("timezone", "UTC"),
        options.get("overlap", SKIP),
        options.get("missed", SKIP),
        int(limit),
    )
    _refuse_unknown_zone(found.timezone)
    _refuse_bad_expression(found)
    return found


def _refuse_other(options: Mapping[str, str], option: str, allowed: tuple[str, ...]) -> None:
    if (value := options.get(option, allowed[0])) not in allowed:
        raise ScheduleError(f'{LABEL}.{option} must be {" or ".join(allowed)}, not "{value}"', "Change the label.")


def _refuse_unknown_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    # A name such as "../x" is a ValueError, a folder such as "Europe" an OSError.
    except (KeyError, ValueError, OSError):
        raise ScheduleError(
            f'{LABEL}.timezone: there is no time zone "{name}"',
            "Write a name of the IANA database, such as Europe/Berlin or UTC.",
        ) from None


def _refuse_bad_expression(schedule: Schedule) -> None:
    fields = schedule.expression.split()
    if len(fields) != 5:
        raise ScheduleError(
            f'{LABEL}: "{schedule.expression}" has {len(fields)} fields instead of five',
            "minute, hour, day of the month, month, day of the week: 0 3 * * * is every day at 03:00.",
        )
    try:
        schedule.after(time.time())
    except StopIteration:
        raise _never(schedule) from None
    except CronSimError as error:
        # CronSim says "Bad day-of-month" both for 32 and for 30 February.
        if _parses(" ".join((*fields[:3], "*", fields[4]))):
            raise _never(schedule) from None
        raise ScheduleError(
            f'{LABEL}: "{schedule.expression}" is not a cron expression: {str(error).lower()}',
            "minute, hour, day of the month, month, day of the week: 0 3 * * * is every day at 03:00.",
        ) from None


def _parses(expression: str) -> bool:
    try:
        CronSim(expression, datetime.fromtimestamp(0))
    except CronSimError:
        return False
    return True


def _never(schedule: Schedule) -> ScheduleError:
    return ScheduleError(f'{LABEL}: "{schedule.expression}" never comes', "Check the day and the month.")
