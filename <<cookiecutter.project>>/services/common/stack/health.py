"""Liveness, readiness and metrics of a service."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stack import log
from stack.lifecycle import Lifecycle
from stack.metrics import DEPENDENCY_UP
from stack.waiting import within

# Characters of an error in a report: room for both hosts of the database, each with its reason.
_LONGEST = 600

Probe = Callable[[], Awaitable[dict[str, Any] | None]]
"""Raises when the dependency is unreachable; may return details to show."""


@dataclass(frozen=True)
class Check:
    """One dependency. One that is not required makes the service degraded, not unready."""

    name: str
    probe: Probe
    required: bool = True


class Health:
    """The checks of one service."""

    def __init__(self, service: str, lifecycle: Lifecycle, timeout: float = 2.0) -> None:
        self.service, self.lifecycle, self.timeout = service, lifecycle, timeout
        self.checks: list[Check] = []
        self.log = log.get()
        self._failed: list[str] = []

    def add(self, name: str, probe: Probe, *, required: bool = True) -> None:
        """Add a dependency that `probe` checks."""
        self.checks.append(Check(name, probe, required))

    async def _run(self, check: Check) -> dict[str, Any]:
        started = time.perf_counter()
        result: dict[str, Any] = {"status": "ok", "required": check.required}
        try:

            async def probe() -> dict[str, Any] | None:
                return await check.probe()

            details = await within(self.timeout, probe())
            if details:
                result["details"] = details
        except Exception as error:
            result["status"] = "failed"
            # libpq gives a line for each host that it asked, and the first line says no more than that it did
            result["error"] = (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST]
        result["ms"] = round((time.perf_counter() - started) * 1000, 1)
        DEPENDENCY_UP.labels(self.service, check.name).set(result["status"] == "ok")
        return result

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service is ready, and the report that says why."""
        results = await asyncio.gather(*(self._run(check) for check in self.checks))
        checks = dict(zip((check.name for check in self.checks), results, strict=True))
        failed = [check for check in self.checks if checks[check.name]["status"] != "ok"]
        missing = [check.name for check in failed if check.required]
        self._tell({check.name: checks[check.name]["error"] for check in failed})
        if self.lifecycle.draining:
            status = "draining"
        elif missing:
            status = "unready"
        else:
            status = "degraded" if failed else "ready"
        body = {
            "status": status,
            "service": self.service,
            "missing": [check.name for check in failed],
            "checks": checks,
        }
        return status in ("ready", "degraded"), body

    def _tell(self, failed: dict[str, str]) -> None:
        """Log what is missing and why, once, and again when that is something else."""
        if self._failed == [*failed]:
            return
        if failed:
            self.log.warning("dependencies are missing", **{"missing": [*failed], "errors": failed})
        else:
            self.log.info("no dependency is missing any more")
        self._failed = [*failed]

    def routes(self) -> APIRouter:
        """/health/live, /health/ready and /metrics."""
        router = APIRouter(include_in_schema=False)

        @router.get("/health/live")
        async def live() -> dict[str, str]:
            return {"status": "alive", "service": self.service}

        @router.get("/health/ready")
        async def ready() -> JSONResponse:
            ok, body = await self.report()
            return JSONResponse(body, 200 if ok else 503)

        @router.get("/metrics")
        async def metrics() -> Response:
            return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        return router
