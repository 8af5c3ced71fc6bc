"""The engine, as far as the proxy lets the scheduler use it: list the jobs, look at one, start one, stop one."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ops.scheduler import schedule
from ops.scheduler.watch import Job

# Of Engine 25, the oldest that the stack supports.
_API = "/v1.44/containers"
_ANSWER_SECONDS = 15
# A stop is answered when the job has ended, after its grace period at the latest.
_STOP_SECONDS = 3600


class EngineError(Exception):
    """The engine, or the proxy in front of it, did not do what it was asked for."""


class Engine:
    """The engine behind host:port."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def jobs(self) -> Iterator[Job]:
        """Every job that can be read. Raises EngineError when the engine does not answer."""
        for listed in self._ask("GET", f"{_API}/json"):
            if found := job(self._ask("GET", f"{_API}/{listed['Id']}/json")):
                yield found

    def start(self, each: Job) -> None:
        """Start a job; one that runs goes on. Raises EngineError."""
        self._ask("POST", f"{_API}/{each.id}/start")

    def stop(self, each: Job) -> None:
        """Stop a job within its own grace period, and wait for that. Raises EngineError."""
        self._ask("POST", f"{_API}/{each.id}/stop", _STOP_SECONDS)

    def _ask(self, method: str, path: str, timeout: float = _ANSWER_SECONDS) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the engine does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        # 304: it runs already, or has ended already.
        if response.status >= 400:
            raise EngineError(f"{method} {path}: {response.status} {_message(body)}")
        return json.loads(body) if body else None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]


def job(inspected: Mapping[str, Any]) -> Job | None:
    """A Job from `docker inspect`; None when its labels say no schedule that can be read: a deploy refuses those."""
    labels, state = inspected["Config"]["Labels"], inspected["State"]
    try:
        found = schedule.parse(labels)
    except schedule.ScheduleError:
        return None
    if not found:
        return None
    return Job(
        id=inspected["Id"],
        service=labels.get("com.docker.compose.service", ""),
        schedule=found,
        running=bool(state["Running"]),
        created=timestamp(inspected["Created"]),
        started=timestamp(state["StartedAt"]),
        finished=timestamp(state["FinishedAt"]),
        exit_code=int(state["ExitCode"]),
    )


def timestamp(text: str) -> float:
    """Seconds since the epoch of a time as the engine writes it, with nanoseconds; 0 for "never"."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)", text)
    if not match or text.startswith("0001"):
        return 0.0
    return datetime.fromisoformat(f"{match[1]}{match[2] or ''}{match[3].replace('Z', '+00:00')}").timestamp()
