"""What Prometheus reads of the scheduler: the last run of each job, the next one, and what it missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ops.scheduler.watch import Job, Watch

_PREFIX = "scheduled_job"


class Jobs(Collector):
    """The jobs as the scheduler saw them last; answers: whether the engine did."""

    def __init__(self) -> None:
        self.seen: list[tuple[Job, Watch]] = []
        self.now = 0.0
        self.answers = False

    def collect(self) -> Iterable[Metric]:
        """All metrics, those of a job with its service."""
        yield GaugeMetricFamily(
            "scheduler_engine_up", "1 while the engine answers the scheduler.", value=float(self.answers)
        )
        gauges = (
            ("running", "1 while it runs."),
            ("limit_seconds", "Seconds after which a run is stopped; 0 for no limit."),
            ("next_run_timestamp_seconds", "When it runs next."),
            ("last_start_timestamp_seconds", "When its last run began."),
            ("last_end_timestamp_seconds", "When its last run ended."),
            ("last_duration_seconds", "How long its last run took, or has taken until now."),
            ("last_exit_code", "The exit code of its last run."),
            ("last_missed_timestamp_seconds", "The last time at which it should have run and did not."),
        )
        counters = (
            ("missed", "Times at which it should have run and did not, because the scheduler was not running."),
            ("skipped", "Times at which it still ran."),
            ("overruns", "Runs that were stopped because they exceeded their limit."),
            ("failed_starts", "Runs that the engine could not start."),
        )
        for name, words in gauges:
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", words, labels=["service"])
            for job, watch in self.seen:
                for value in self._values(name, job, watch):
                    gauge.add_metric([job.service], value)
            yield gauge
        for name, words in counters:
            counter = CounterMetricFamily(f"{_PREFIX}_{name}", words, labels=["service"])
            for job, watch in self.seen:
                counter.add_metric([job.service], getattr(watch, name))
            yield counter

    def _values(self, name: str, job: Job, watch: Watch) -> Iterator[float]:
        """The value of a gauge; none where there is nothing to tell: of the last run before the first one."""
        if name == "running":
            yield float(job.running)
        elif name == "limit_seconds":
            yield job.schedule.limit
        elif name == "next_run_timestamp_seconds":
            yield job.schedule.after(self.now)
        elif name == "last_missed_timestamp_seconds":
            yield watch.last_missed
        elif name == "last_start_timestamp_seconds" and job.started:
            yield job.started
        elif name == "last_duration_seconds" and job.started:
            yield (self.now if job.running else job.finished) - job.started
        elif job.ran:
            yield job.finished if name == "last_end_timestamp_seconds" else job.exit_code
