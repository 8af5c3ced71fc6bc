"""The webhook is a real HTTP server here."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ops.rollout import notify

TOLD = {
    "ENV": "prod",
    "PROJECT": "shop-prod",
    "COMMAND": "deploy",
    "USER": "ann@host",
    "COMMIT": "1a2b3c4",
    "SERVICES": "api web",
    "RELEASE": "17",
    "RESULT": "failed",
    "REASON": "api is unhealthy.",
    "SECONDS": "42",
}
SECRET_PATH = "/services/T0/B0/very-secret"


class Receiver:
    """What was posted; statuses: the answers, one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.delay = 0.0
        self.bodies: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.bodies.append({"path": self.path, "type": self.headers["Content-Type"], **body})
                time.sleep(receiver.delay)
                self.send_response(receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0])
                self.end_headers()

            def log_message(self, *_args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{SECRET_PATH}"


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    monkeypatch.setenv("no_proxy", "*")
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


def configure(env, url: str) -> None:
    (env.secrets_dir / notify.SECRET).write_text(f"{url}\n")


def warned(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert "very-secret" not in said.out + said.err
    return said.err


def test_without_an_address_nobody_is_told(env, receiver: Receiver, capsys) -> None:
    notify.send(env, notify.STARTED, TOLD)
    (env.secrets_dir / notify.SECRET).write_text("\n")
    notify.send(env, notify.STARTED, TOLD)
    assert (receiver.bodies, warned(capsys)) == ([], "")


def test_a_text_for_people_and_fields_for_programs(env, receiver: Receiver, capsys) -> None:
    configure(env, receiver.url)
    notify.send(env, notify.FAILED, TOLD)
    assert warned(capsys) == ""
    (body,) = receiver.bodies
    assert (body.pop("path"), body.pop("type")) == (SECRET_PATH, "application/json")
    assert body == {
        "text": "❌ shop-prod: deploy failed by ann@host (api, web) at 1a2b3c4\napi is unhealthy.",
        "event": "failed",
        "services": ["api", "web"],
        "env": "prod",
        "project": "shop-prod",
        "command": "deploy",
        "user": "ann@host",
        "commit": "1a2b3c4",
        "release": "17",
        "result": "failed",
        "reason": "api is unhealthy.",
        "seconds": "42",
    }


@pytest.mark.parametrize("event", [notify.STARTED, notify.SUCCEEDED, notify.ROLLED_BACK])
def test_what_is_not_known_yet_is_left_out_of_the_text(event: str) -> None:
    text = notify.document(event, {**TOLD, "COMMIT": "", "SERVICES": "", "REASON": ""})["text"]
    assert str(text).endswith(f"shop-prod: deploy {event} by ann@host")


def test_it_is_tried_once_more(env, receiver: Receiver, capsys) -> None:
    receiver.statuses = [503, 200]
    configure(env, receiver.url)
    notify.send(env, notify.STARTED, TOLD)
    assert (len(receiver.bodies), warned(capsys)) == (2, "")


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (400, 1), (429, 2), (500, 2)])
def test_a_refusal_is_a_warning(env, receiver: Receiver, capsys, status: int, attempts: int) -> None:
    receiver.statuses = [status]
    configure(env, receiver.url)
    notify.send(env, notify.STARTED, TOLD)
    assert len(receiver.bodies) == attempts
    assert f"it answered {status}" in warned(capsys)


def test_one_that_does_not_answer_costs_some_seconds_at_most(env, receiver: Receiver, capsys, monkeypatch) -> None:
    monkeypatch.setattr(notify, "_ATTEMPT_SECONDS", 0.2)
    receiver.delay = 3
    configure(env, receiver.url)
    began = time.monotonic()
    notify.send(env, notify.STARTED, TOLD)
    assert time.monotonic() - began < 2
    assert "TimeoutError" in warned(capsys)


def test_a_name_server_that_does_not_answer_costs_some_seconds_at_most(env, capsys, monkeypatch) -> None:
    monkeypatch.setattr(notify, "_ALL_SECONDS", 0.2)

    def silent(*_args):
        time.sleep(3)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    configure(env, f"https://hooks.invalid{SECRET_PATH}")
    began = time.monotonic()
    notify.send(env, notify.STARTED, TOLD)
    assert time.monotonic() - began < 2
    assert "no answer within" in warned(capsys)


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1{SECRET_PATH}",
        f"file://{SECRET_PATH}",
        SECRET_PATH,
        f"http://[{SECRET_PATH}",
        f"http://127.0.0.1:1{SECRET_PATH} with a blank",
        f"http://127.0.0.1:port{SECRET_PATH}",
        f"http://nobody.invalid{SECRET_PATH}",
    ],
)
def test_no_failure_shows_the_address(env, capsys, url: str) -> None:
    configure(env, url)
    notify.send(env, notify.STARTED, TOLD)
    said = warned(capsys)
    assert "The webhook (DEPLOY_WEBHOOK_URL) was not told" in said
    # The real reason, and at once.
    assert "no answer" not in said
