"""Starts every job at its time, and does nothing else. Metrics: http://…:8000/metrics, liveness: the same page."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

from prometheus_client import REGISTRY, start_http_server

from ops.scheduler.engine import Engine, EngineError
from ops.scheduler.metrics import Jobs
from ops.scheduler.watch import Action, Job, Watch

PORT = 8000
# Between two looks: while a job runs or waits, its end is noticed soon; otherwise only its next time matters.
_BUSY_SECONDS = 1.0
_IDLE_SECONDS = 5.0


def say(level: str, event: str, **fields: object) -> None:
    """A line of the log, as the other services write theirs."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"timestamp": moment, "level": level, "event": event, **fields}), flush=True)


class Scheduler:
    """Looks at the jobs and starts or stops them."""

    def __init__(self, engine: Engine, metrics: Jobs) -> None:
        self._engine = engine
        self._metrics = metrics
        self._watches: dict[str, Watch] = {}

    def look(self, now: float) -> float:
        """Do what is to be done now; seconds until the next look."""
        try:
            jobs = list(self._engine.jobs())
        except EngineError as error:
            if self._metrics.answers or not self._metrics.now:
                say("error", "engine unreachable", reason=str(error))
            self._metrics.answers, self._metrics.now = False, now
            return _BUSY_SECONDS
        if not self._metrics.answers:
            say("info", "engine answers", jobs=[each.service for each in jobs])
        self._metrics.answers, self._metrics.now = True, now
        self._watches = {each.service: self._watches.get(each.service, Watch()) for each in jobs}
        for each in jobs:
            self._act(each, self._watches[each.service], now)
        self._metrics.seen = [(each, self._watches[each.service]) for each in jobs]
        busy = any(each.running or self._watches[each.service].waiting for each in jobs)
        following = min((each.schedule.after(now) for each in jobs), default=now + _IDLE_SECONDS)
        return max(0.05, min(_BUSY_SECONDS if busy else _IDLE_SECONDS, following - now))

    def _act(self, job: Job, watch: Watch, now: float) -> None:
        missed, skipped = watch.missed, watch.skipped
        action = watch.decide(job, now)
        if watch.missed > missed:
            say("warning", "job missed its time", service=job.service, due=int(watch.last_missed))
        if watch.skipped > skipped:
            say("warning", "job still runs at its next time", service=job.service)
        if action == Action.START:
            say("info", "job starts", service=job.service)
            try:
                self._engine.start(job)
            except EngineError as error:
                watch.failed_starts += 1
                say("error", "job could not be started", service=job.service, reason=str(error))
        elif action == Action.STOP:
            say("error", "job exceeded its limit and is stopped", service=job.service, limit=job.schedule.limit)
            # It may take its whole grace period, and other jobs have their times.
            threading.Thread(target=self._stop, args=(job,), daemon=True).start()

    def _stop(self, job: Job) -> None:
        try:
            self._engine.stop(job)
        except EngineError as error:
            say("error", "job could not be stopped", service=job.service, reason=str(error))


def main() -> int:
    """Run until SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    host, _, port = os.environ["ENGINE"].partition(":")
    metrics = Jobs()
    REGISTRY.register(metrics)
    start_http_server(PORT)
    scheduler = Scheduler(Engine(host, int(port)), metrics)
    while not ended.wait(scheduler.look(time.time())):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
