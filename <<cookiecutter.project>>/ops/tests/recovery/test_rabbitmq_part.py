"""RabbitMQ's definitions over HTTP."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops.base.errors import OpsError
from ops.recovery import rabbitmq

DOCUMENT = {
    "rabbitmq_version": "4.3.6",
    "users": [{"name": "admin", "password_hash": "x"}],
    "parameters": [{"value": {"src-uri": "amqp://user:password@elsewhere"}}],
    "queues": [{"name": "mails"}],
    "exchanges": [],
    "bindings": [],
    "policies": [],
    "vhosts": [{"name": "/"}],
}


class Broker(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, json.dumps(DOCUMENT).encode())

    def do_GET(self) -> None:
        login = base64.b64encode(b"admin:secret").decode()
        code, body = self.answer
        self.send_response(code if self.headers["Authorization"] == f"Basic {login}" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Broker]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("One", (Broker,), {})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(rabbitmq, "_PORT", server.server_port)
        monkeypatch.setattr(rabbitmq, "address", lambda node: {"rabbitmq": "127.0.0.1"}.get(node, "nowhere.invalid"))
        yield server.RequestHandlerClass  # type: ignore[misc]
        server.shutdown()


def test_users_and_passwords_are_left_out(broker: type[Broker]) -> None:
    found = rabbitmq.definitions(["rabbitmq-2", "rabbitmq"], "admin", "secret")
    assert set(found) == {"rabbitmq_version", *rabbitmq.KEPT}
    assert "password" not in json.dumps(found)
    assert rabbitmq.counts(json.dumps(found).encode())["queues"] == 1


@pytest.mark.parametrize("answer", [(401, b"{}"), (200, b"{"), (200, b"[]"), (200, b'{"error": "x"}'), (500, b"")])
def test_another_answer_is_an_error(broker: type[Broker], answer: tuple[int, bytes]) -> None:
    broker.answer = answer
    with pytest.raises(OpsError, match="cannot be read: rabbitmq: "):
        rabbitmq.definitions(["rabbitmq"], "admin", "secret")


def test_a_wrong_password_is_an_error(broker: type[Broker]) -> None:
    with pytest.raises(OpsError, match="it answers 401"):
        rabbitmq.definitions(["rabbitmq"], "admin", "other")


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"queues": 3}'])
def test_a_damaged_document_is_an_error(text: bytes) -> None:
    with pytest.raises(OpsError):
        rabbitmq.counts(text)
