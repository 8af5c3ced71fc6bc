"""The outermost layer of every service: request id, access log, metrics, last-resort errors, drain."""

import re
import socket
import time
import uuid
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from stack import log, metrics
from stack.lifecycle import Lifecycle

QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_HOSTNAME = socket.gethostname().encode()


class Edge:
    """Plain ASGI, because a layer built on Starlette's BaseHTTPMiddleware copies every body and breaks streaming.

    Args:
        failure: the answer when the application fails.
    """

    def __init__(self, app: ASGIApp, service: str, lifecycle: Lifecycle, failure: Callable[[], Response]) -> None:
        self.app, self.service, self.lifecycle, self.failure = app, service, lifecycle, failure
        self.in_flight = metrics.IN_FLIGHT.labels(service)
        self.log = log.get()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex.encode()
        clear_contextvars()
        bind_contextvars(request_id=request_id.decode())
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # nginx passes X-Served-By on to the outside only where it is told to
                headers = [*message.get("headers", ()), (b"x-request-id", request_id), (b"x-served-by", _HOSTNAME)]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))  # nearly everything is for one person only
                if self.lifecycle.draining:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        started = time.perf_counter()
        self.in_flight.inc()
        try:
            await self.app(scope, receive, answer)
        except Exception:
            self.log.exception("request failed", method=scope["method"], path=scope["path"])
            if not status:
                await self.failure()(scope, receive, answer)
            else:
                raise  # half an answer is out: only closing the connection can tell the client
        finally:
            self.in_flight.dec()
            self._record(scope, status or 499, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "unmatched")
        metrics.observe(self.service, scope["method"], path, status, seconds)
        # Why a service is not ready, Health says once: a line for each time that it is asked would bury that.
        say = self.log.debug if path in QUIET and (status < 400 or status == 503) else self.log.info
        say("request", method=scope["method"], path=path, status=status, duration_ms=round(seconds * 1000, 1))
