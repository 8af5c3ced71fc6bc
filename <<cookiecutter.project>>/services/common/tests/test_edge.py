import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client import REGISTRY
from pydantic import BaseModel

from stack import log
from stack.app import frame, lifecycle_of
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.problems import Problem, Unavailable
from stack.settings import Settings

routes = APIRouter()


class Body(BaseModel):
    number: int


@routes.get("/things/{number}")
async def thing(number: int) -> dict[str, str]:
    return {"request_id": log.request_id()}


@routes.post("/things")
async def make(body: Body) -> None:
    raise Problem(409, "there is one already", hint="x")


@routes.get("/away")
async def away() -> None:
    raise Unavailable("the database")


@routes.get("/broken")
async def broken() -> None:
    raise RuntimeError("a secret detail")


@pytest.fixture
def health() -> Health:
    return Health("edge", Lifecycle(), timeout=0.2)


@pytest.fixture
def app(health: Health) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    return frame(Settings(service_name="edge"), health, lifespan, routes)


async def test_a_request_id_is_taken_over(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.get("/things/1", headers={"X-Request-ID": "abc-123"})
    assert answer.json() == {"request_id": "abc-123"}
    assert answer.headers["x-request-id"] == "abc-123"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-served-by"]


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, 'a"b'])
async def test_a_request_id_is_made_when_there_is_no_usable_one(app, client_of, given: str) -> None:
    async with client_of(app) as client:
        answer = await client.get("/things/1", headers={"X-Request-ID": given})
    assert len(answer.headers["x-request-id"]) == 32


async def test_problems_carry_the_request_id(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.post("/things", json={"number": 1}, headers={"X-Request-ID": "r1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["detail"], body["request_id"], body["hint"]) == ("there is one already", "r1", "x")


async def test_what_was_sent_is_not_repeated_in_a_validation_error(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.post("/things", json={"number": "hunter2"})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    assert answer.json()["errors"][0]["field"] == "number"


async def test_a_missing_dependency_is_503_with_a_time_to_come_back(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.get("/away")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_a_failure_tells_nothing_about_the_inside(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.get("/broken", headers={"X-Request-ID": "r2"})
    assert answer.status_code == 500
    assert answer.json()["request_id"] == "r2"
    assert "secret detail" not in answer.text


def count(path: str, code: str, method: str = "GET") -> float:
    labels = {"service": "edge", "method": method, "path": path, "code": code}
    return REGISTRY.get_sample_value("http_requests_total", labels) or 0


async def test_metrics_use_the_template_of_the_route(app, client_of) -> None:
    before, unmatched, other = (
        count("/things/{number}", "200"),
        count("unmatched", "404"),
        count("unmatched", "404", "OTHER"),
    )
    async with client_of(app) as client:
        await client.get("/things/1")
        await client.get("/things/2")
        await client.get("/nothing/here")
        await client.request("BREW", "/nothing")
        text = (await client.get("/metrics")).text
    assert count("/things/{number}", "200") - before == 2
    assert count("unmatched", "404") - unmatched == 1
    assert count("unmatched", "404", "OTHER") - other == 1
    assert 'http_request_duration_seconds_bucket{le="0.5",method="GET",path="/things/{number}",service="edge"}' in text
    assert 'http_requests_in_flight{service="edge"} 1.0' in text  # this very request


async def test_one_access_line_a_request_and_none_for_health(app, client_of, capsys) -> None:
    log.configure("edge", "info")
    async with client_of(app) as client:
        capsys.readouterr()
        await client.get("/things/7", headers={"X-Request-ID": "r3"})
        await client.get("/health/live")
        await client.get("/metrics")
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/things/{number}", 200)
    assert (line["service"], line["level"], line["request_id"]) == ("edge", "info", "r3")
    assert line["duration_ms"] >= 0
    assert line["time"].endswith("Z")


def test_libraries_log_json_too(capsys) -> None:
    log.configure("edge", "info")
    logging.getLogger("some.library").warning("look %s", "here")
    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["service"], line["level"]) == ("look here", "edge", "warning")


async def test_ready_names_what_is_missing(app, client_of, health: Health) -> None:
    import asyncio

    async def fine() -> dict[str, int]:
        return {"messages": 3}

    async def absent() -> None:
        raise ConnectionError("connection refused\nand more")

    async def silent() -> None:
        await asyncio.sleep(30)

    health.add("broker", fine)
    health.add("cache", absent, required=False)
    async with client_of(app) as client:
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["checks"]["broker"]["details"] == {"messages": 3}
        assert answer.json()["checks"]["cache"]["error"] == "connection refused and more"
        health.add("database", silent)
        health.add("search", silent)
        answer = await client.get("/health/ready")
    body = answer.json()
    assert (answer.status_code, body["status"]) == (503, "unready")
    assert body["missing"] == ["cache", "database", "search"]
    assert "0.2 s" in body["checks"]["database"]["error"]
    assert body["checks"]["search"]["ms"] < 390  # both were asked at the same time


async def test_what_is_missing_is_logged_once_and_with_its_reason(app, client_of, health: Health, capsys) -> None:
    """Readiness is asked every second: a line each would push the reason out of the last lines that a deploy shows."""
    reasons = ["password authentication failed"]

    async def probe() -> None:
        if reasons:
            raise ConnectionError(*reasons)

    log.configure("edge")
    health.log = log.get()
    health.add("database", probe)
    async with client_of(app) as client:
        for _ in range(3):
            assert (await client.get("/health/ready")).status_code == 503
        reasons.clear()
        for _ in range(2):
            assert (await client.get("/health/ready")).status_code == 200
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["level"], line["event"]) for line in told] == [
        ("warning", "dependencies are missing"),
        ("info", "no dependency is missing any more"),
    ]
    assert told[0]["errors"] == {"database": "password authentication failed"}


async def test_draining_fails_readiness_only(app, client_of) -> None:
    async with client_of(app) as client:
        assert (await client.get("/health/ready")).status_code == 200
        lifecycle_of(app).drain()
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert (await client.get("/health/live")).status_code == 200
        answer = await client.get("/things/1")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_the_package_has_no_network_address_of_an_index() -> None:
    folder = Path(__file__).parents[2]
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert "://" not in (folder / name).read_text()
