"""The scheduler beside a small engine of its own, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ops.scheduler import engine
from ops.scheduler.__main__ import Scheduler
from ops.scheduler.engine import Engine, EngineError
from ops.scheduler.metrics import Jobs

NOON = 12 * 3600
NEVER = "0001-01-01T00:00:00Z"


def inspected(**changes: Any) -> dict[str, Any]:
    state = {"Running": False, "StartedAt": "1970-01-01T11:00:00.5Z", "FinishedAt": "1970-01-01T11:00:20.25Z"}
    labels = {"com.docker.compose.service": "report", "ops.schedule": "0 * * * *", **changes.pop("labels", {})}
    return {
        "Id": "a1",
        "Created": "1970-01-01T09:30:00.123456789Z",
        "State": {**state, "ExitCode": 0, **changes},
        "Config": {"Labels": labels},
    }


class Fake:
    """An engine with one container. status: what it answers to orders."""

    def __init__(self) -> None:
        self.container = inspected()
        self.status = 204
        self.orders: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listing = self.path == "/v1.44/containers/json"
                self._answer(200, [{"Id": "a1"}] if listing else fake.container)

            def do_POST(self) -> None:
                fake.orders.append(self.path)
                self._answer(fake.status, {"message": "no such mount"} if fake.status >= 400 else None)

            def _answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def client(self) -> Engine:
        return Engine("127.0.0.1", self.server.server_address[1])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    found = Fake()
    yield found
    found.close()


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def metrics(jobs: Jobs) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(jobs)
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_it_sleeps_until_the_time_and_starts_the_job(fake: Fake, jobs: Jobs) -> None:
    scheduler = Scheduler(fake.client, jobs)
    assert scheduler.look(NOON - 100) == 5
    assert scheduler.look(NOON - 0.5) == 0.5
    assert fake.orders == []
    scheduler.look(NOON)
    assert fake.orders == ["/v1.44/containers/a1/start"]


def test_it_looks_often_while_a_job_runs_and_stops_it_at_its_limit(fake: Fake, jobs: Jobs) -> None:
    fake.container = inspected(labels={"ops.schedule.limit": "60"}, Running=True)
    scheduler = Scheduler(fake.client, jobs)
    assert scheduler.look(11 * 3600 + 30) == 1
    scheduler.look(11 * 3600 + 61)
    for thread in threading.enumerate():
        if thread.name.endswith("(_stop)"):
            thread.join()
    assert fake.orders == ["/v1.44/containers/a1/stop"]
    assert metrics(jobs)['scheduled_job_overruns_total{service="report"}'] == 1


def test_the_metrics_say_how_the_last_run_ended(fake: Fake, jobs: Jobs) -> None:
    fake.container = inspected(ExitCode=3)
    Scheduler(fake.client, jobs).look(NOON - 100)
    found = metrics(jobs)
    assert found["scheduler_engine_up"] == 1
    assert found['scheduled_job_last_start_timestamp_seconds{service="report"}'] == 11 * 3600 + 0.5
    assert found['scheduled_job_last_end_timestamp_seconds{service="report"}'] == 11 * 3600 + 20.25
    assert found['scheduled_job_last_duration_seconds{service="report"}'] == 19.75
    assert found['scheduled_job_last_exit_code{service="report"}'] == 3
    assert found['scheduled_job_next_run_timestamp_seconds{service="report"}'] == NOON
    assert found['scheduled_job_running{service="report"}'] == 0
    assert found['scheduled_job_missed_total{service="report"}'] == 0


def test_a_job_that_never_ran_has_no_last_run(fake: Fake, jobs: Jobs) -> None:
    fake.container = inspected(StartedAt=NEVER, FinishedAt=NEVER)
    Scheduler(fake.client, jobs).look(NOON - 100)
    assert not [name for name in metrics(jobs) if "_last_exit" in name or "_last_start" in name or "_last_end" in name]


def test_a_job_that_missed_its_time_is_in_the_metrics(fake: Fake, jobs: Jobs) -> None:
    Scheduler(fake.client, jobs).look(NOON + 100)
    found = metrics(jobs)
    assert found['scheduled_job_missed_total{service="report"}'] == 1
    assert found['scheduled_job_last_missed_timestamp_seconds{service="report"}'] == NOON


def test_a_start_that_the_engine_refuses_is_counted_and_said(
    fake: Fake, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.status = 500
    scheduler = Scheduler(fake.client, jobs)
    scheduler.look(NOON - 1)
    scheduler.look(NOON)
    assert metrics(jobs)['scheduled_job_failed_starts_total{service="report"}'] == 1
    assert "no such mount" in capsys.readouterr().out


def test_an_engine_that_is_away_is_said_once_and_missed_times_are_known_when_it_is_back(
    fake: Fake, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = Scheduler(fake.client, jobs)
    scheduler.look(NOON - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_ask", _away)
        for second in range(600):
            scheduler.look(NOON + second)
        assert metrics(jobs)["scheduler_engine_up"] == 0
    assert capsys.readouterr().out.count("engine unreachable") == 1
    scheduler.look(NOON + 600)
    found = metrics(jobs)
    assert found["scheduler_engine_up"] == 1
    assert found['scheduled_job_missed_total{service="report"}'] == 1
    assert fake.orders == []


def _away(*_args: Any) -> Any:
    raise EngineError("the engine does not answer: refused")


def test_nobody_listening_is_an_engine_error(fake: Fake) -> None:
    client = fake.client
    fake.close()
    with pytest.raises(EngineError, match="does not answer"):
        list(client.jobs())
    fake.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=fake.server.serve_forever, args=(0.01,), daemon=True).start()


def test_a_container_whose_labels_say_nothing_sensible_is_left_out() -> None:
    assert engine.job(inspected(labels={"ops.schedule": "soon"})) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(NEVER, 0), ("1970-01-01T00:01:00Z", 60), ("1970-01-01T00:00:00.123456789Z", 0.123456), ("", 0)],
)
def test_times_of_the_engine(text: str, seconds: float) -> None:
    assert engine.timestamp(text) == seconds
