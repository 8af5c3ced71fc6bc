"""What is to be done about a job at a moment: decided from its container, its schedule and what was done before.

The container is the truth about runs: when the last one began and ended, and how. So nothing is lost when the scheduler
is restarted, and `invoke status` says the same while it is down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ops.scheduler import schedule
from ops.scheduler.schedule import Schedule


@dataclass(frozen=True)
class Job:
    """A job's container. Times are seconds since the epoch, 0 for never. exit_code: of its last run."""

    id: str
    service: str
    schedule: Schedule
    running: bool = False
    created: float = 0
    started: float = 0
    finished: float = 0
    exit_code: int = 0

    @property
    def ran(self) -> bool:
        """Whether it has ended once."""
        return not self.running and self.started > 0

    def looked_after(self, now: float) -> float:
        """Until when no run can be missing: it was made then, or has been at work until then."""
        return now if self.running else max(self.created, self.finished)

    def missed(self, now: float, since: float = 0) -> float:
        """The last time, since a moment, at which it should have run and did not; 0 when there was none. One that may
        still be in time is not missed. since: 0 stands for when it was made, or was at work last."""
        due = self.schedule.before(now)
        last = self.schedule.before(due - 1) if now - due <= schedule.GRACE_SECONDS else due
        return last if last > (since or self.looked_after(now)) else 0.0


class Action(Enum):
    """What to do about a job."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"


@dataclass
class Watch:
    """What the scheduler knows of a job beside its container, since it started.

    handled: until when its times have been dealt with; waiting: it is to start when it has ended; stopped: the start of
    the run that was stopped for its limit. The rest is for the metrics.
    """

    handled: float = 0
    waiting: bool = False
    stopped: float = 0
    last_missed: float = 0
    missed: int = 0
    skipped: int = 0
    overruns: int = 0
    failed_starts: int = 0

    def decide(self, job: Job, now: float) -> Action:
        """What to do about a job now, noted as done."""
        if not self.handled:
            # The scheduler, or the job, is new: what has happened until then, the container knows.
            self.handled = min(job.looked_after(now), now)
        self.handled = max(self.handled, job.created)
        if self._is_due(job, now):
            if not job.running:
                return Action.START
            if job.schedule.overlap == schedule.WAIT:
                self.waiting = True
            else:
                self.skipped += 1
        if self.waiting and not job.running:
            self.waiting = False
            return Action.START
        limit = job.schedule.limit
        if job.running and limit and now - job.started > limit and self.stopped != job.started:
            self.stopped = job.started
            self.overruns += 1
            return Action.STOP
        return Action.NOTHING

    def _is_due(self, job: Job, now: float) -> bool:
        """Whether a time has come, or one that was missed is to be made up for. Several that were missed are one."""
        due = job.schedule.before(now)
        if due <= self.handled:
            return False
        if missed := job.missed(now, self.handled):
            self.missed += 1
            self.last_missed = missed
        self.handled = due
        return missed != due or job.schedule.missed == schedule.RUN
