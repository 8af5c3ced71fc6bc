"""Scheduled jobs as they stand: how the last run ended, and when the next one is.

Told by their containers and schedules, so the scheduler need not be there for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from ops.base import console
from ops.engine import Container
from ops.parts.probes import Check, Status
from ops.scheduler.schedule import Schedule, ScheduleError, parse
from ops.scheduler.watch import Job
from ops.stack.model import Service, Stack

# What a process that was stopped or killed ends with: 128 and the number of the signal, TERM or KILL.
_STOPPED = {143, 137}


@dataclass(frozen=True)
class Standing:
    """A scheduled job as it stands. last, following: when it ran last and runs next, in words; took: seconds of the
    last run, 0 when there was none."""

    service: str
    status: Status
    result: str
    last: str = ""
    took: float = 0
    following: str = ""


def standings(declared: Stack, containers: Sequence[Container], now: float) -> list[Standing]:
    """How every scheduled job stands, in the order of the Compose files."""
    return [
        _standing(service, next((each for each in reversed(containers) if each.service == name), None), now)
        for name, service in declared.scheduled.items()
    ]


def checks(declared: Stack, containers: Sequence[Container], now: float) -> list[Check]:
    """The same for `invoke health`."""
    found = []
    for each in standings(declared, containers, now):
        last = f" ({each.last}, took {console.duration(each.took)})" if each.last else ""
        following = f"; next run {each.following}" if each.following else ""
        found.append(Check("job", each.service, each.status, f"{each.result}{last}{following}"))
    return found


def _standing(service: Service, container: Container | None, now: float) -> Standing:
    name = service.name
    if container is None:
        return Standing(name, "fail", "it was never scheduled: invoke deploy")
    try:
        # What the scheduler goes by; what is declared since, a deploy brings.
        schedule = parse(container.labels)
    except ScheduleError as error:
        return Standing(name, "fail", error.problem)
    if schedule is None:
        return Standing(name, "warn", "it was made without a schedule: invoke deploy")
    job = job_of(container, schedule)
    status, result = _judge(job, container, now)
    took = (now if job.running else job.finished) - job.started if job.started else 0
    last = clock(job.started, schedule) if job.started else ""
    return Standing(name, status, result, last, max(0, took), clock(schedule.after(now), schedule))


def job_of(container: Container, schedule: Schedule) -> Job:
    """A container as the scheduler sees it."""
    return Job(
        id=container.id,
        service=container.service,
        schedule=schedule,
        running=container.running,
        created=container.created,
        started=container.started,
        finished=container.finished,
        exit_code=container.exit_code,
    )


def _judge(job: Job, container: Container, now: float) -> tuple[Status, str]:
    limit = job.schedule.limit
    if job.running:
        took = now - job.started
        return (
            ("warn", f"running for longer than its limit of {limit} s") if limit and took > limit else ("ok", "running")
        )
    found = [_failure(job, container), _missed(job, now)]
    said = "; ".join(filter(None, found))
    if said:
        return ("fail" if found[0] else "warn"), said
    return ("ok", "succeeded") if job.ran else ("ok", "has not run yet")


def _failure(job: Job, container: Container) -> str:
    limit = job.schedule.limit
    if container.error:
        return f"could not be started: {container.error}"
    if not (job.ran and job.exit_code):
        return ""
    if container.oom_killed:
        return "failed: out of memory, its limit is too low"
    if limit and job.exit_code in _STOPPED and job.finished - job.started >= limit:
        return f"failed: it was stopped after its limit of {limit} s"
    return f"failed with exit code {job.exit_code}"


def _missed(job: Job, now: float) -> str:
    missed = job.missed(now)
    return f"missed its time {clock(missed, job.schedule)}: the scheduler was not running" if missed else ""


def clock(moment: float, schedule: Schedule) -> str:
    """A moment as the clock of a schedule shows it."""
    shown = datetime.fromtimestamp(moment, ZoneInfo(schedule.timezone))
    return f"{shown:%Y-%m-%d %H:%M} {schedule.timezone}"
