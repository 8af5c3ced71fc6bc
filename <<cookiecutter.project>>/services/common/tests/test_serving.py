"""A real server process on a loopback port, stopped as Docker stops it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2]
APP = """
import asyncio, contextlib, gc, time
from contextlib import asynccontextmanager
from fastapi import APIRouter
from stack import log
from stack.app import frame
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.serve import serve
from stack.settings import Settings
import stack.serve, stack.watchdog

routes = APIRouter()

@routes.get("/slow")
async def slow(seconds: float):
    await asyncio.sleep(seconds)
    return {"slept": seconds}

@routes.get("/forgotten")
async def forgotten():
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(0.0005):
            await asyncio.open_connection("gone.invalid", 5672)
    await asyncio.sleep(1)
    gc.collect()

@routes.get("/stuck")
async def stuck():
    time.sleep(60)

@asynccontextmanager
async def lifespan(app):
    yield
    log.get().info("lifespan ended")

stack.serve.Watchdog = lambda: stack.watchdog.Watchdog(limit=1.0)
settings = Settings(service_name="drain")
log.configure("drain", "info")
serve(frame(settings, Health("drain", Lifecycle()), lifespan, routes))
"""


class Server:
    def __init__(self, drain: float, grace: float = 5) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            **os.environ,
            "PYTHONPATH": str(SERVICES / "common"),
            "PORT": str(self.port),
            "DRAIN_SECONDS": str(drain),
            "GRACE_SECONDS": str(grace),
        }
        self.process = subprocess.Popen([sys.executable, "-c", APP], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(1200):
            try:
                assert self.get("/health/live")[0] == 200
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def get(self, path: str) -> tuple[int, dict[str, str]]:
        connection = self.connection()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 10) -> int:
        return self.process.wait(timeout)


@pytest.fixture
def start() -> Iterator[type[Server]]:
    started: list[Server] = []

    def make(*args: float) -> Server:
        started.append(Server(*args))
        return started[-1]

    yield make
    for server in started:
        server.process.kill()
        server.process.communicate()


def test_sigterm_drains_and_loses_nothing(start) -> None:
    server = start(1.0)
    idle = server.connection()
    idle.request("GET", "/health/live")
    idle.getresponse().read()
    slow: list[int] = []
    thread = threading.Thread(target=lambda: slow.append(server.get("/slow?seconds=2")[0]))
    thread.start()
    time.sleep(0.3)

    server.signal()
    time.sleep(0.2)
    status, headers = server.get("/health/ready")
    assert (status, headers["connection"]) == (503, "close")
    # New connections and kept-alive ones are still served, and told to go elsewhere.
    status, headers = server.get("/slow?seconds=0")
    assert (status, headers["connection"]) == (200, "close")
    idle.request("GET", "/slow?seconds=0")
    assert idle.getresponse().headers["connection"] == "close"

    thread.join()
    assert slow == [200]  # longer than the drain time: finished all the same
    assert server.wait() == 0
    lines = [json.loads(line)["event"] for line in server.process.stdout]
    assert lines[-2:] == ["lifespan ended", "stopped"]


def test_idle_connections_do_not_hold_up_the_end(start) -> None:
    server = start(0.2)
    idle = server.connection()
    idle.request("GET", "/health/live")
    idle.getresponse().read()
    began = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert time.monotonic() - began < 2
    assert idle.sock is None or idle.sock.recv(1) == b""


def test_open_requests_are_waited_for_only_so_long(start) -> None:
    server = start(0.0, 1)
    threading.Thread(target=lambda: _ignore(lambda: server.get("/slow?seconds=30")), daemon=True).start()
    time.sleep(0.3)
    began = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert time.monotonic() - began < 4


def test_a_second_signal_hastens(start) -> None:
    server = start(30.0)
    server.signal()
    time.sleep(0.3)
    began = time.monotonic()
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert time.monotonic() - began < 2


def test_a_stuck_loop_ends_the_process(start) -> None:
    server = start(0.0)
    threading.Thread(target=lambda: _ignore(lambda: server.get("/stuck")), daemon=True).start()
    assert server.wait() == 70
    last = [json.loads(line) for line in server.process.stdout][-1]
    assert (last["level"], last["event"]) == ("critical", "event loop is stuck: exiting")


def test_a_paused_process_is_not_taken_for_a_stuck_one(start) -> None:
    server = start(0.0)
    server.signal(signal.SIGSTOP)
    time.sleep(2.5)
    server.signal(signal.SIGCONT)
    time.sleep(0.5)
    assert server.get("/health/live")[0] == 200


def test_probe(start) -> None:
    server = start(1.0)

    def probe(kind: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(SERVICES / "common"), "PORT": str(server.port)}
        command = [sys.executable, "-S", "-m", "stack.probe", kind]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)

    assert probe("ready").returncode == 0
    server.signal()
    time.sleep(0.2)
    assert probe("live").returncode == 0
    done = probe("ready")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "draining"
    server.wait()
    done = probe("live")
    assert (done.returncode, "no answer" in done.stdout) == (1, True)


def test_keep_alive_outlasts_that_of_nginx(start) -> None:
    from stack import serve

    assert serve.KEEP_ALIVE_SECONDS > 60


def test_an_unknown_service_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stack", "nonsense"],
        env={**os.environ, "PYTHONPATH": str(SERVICES / "common")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("unknown service 'nonsense'")


def _ignore(call) -> None:
    try:
        call()
    except (OSError, http.client.HTTPException):
        return


def test_a_name_that_is_not_found_in_the_end_is_no_error(start) -> None:
    server = start(0.0)
    assert server.get("/forgotten")[0] == 200
    server.signal()
    assert server.wait() == 0
    lines = [json.loads(line) for line in server.process.stdout]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
