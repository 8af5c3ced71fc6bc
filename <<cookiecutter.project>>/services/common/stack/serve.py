"""The server: uvicorn with a drain that loses nothing."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI

from stack import log
from stack.app import lifecycle_of
from stack.settings import Settings
from stack.watchdog import Watchdog

# Longer than nginx keeps idle upstream connections (60 s), so that nginx is always the one that closes.
KEEP_ALIVE_SECONDS = 75


class Server(uvicorn.Server):
    """SIGTERM: readiness fails, requests are still served for the drain time, then open ones finish, then exit 0.

    A second signal skips the drain time, a third one the open requests.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self.lifecycle, self.drain_seconds = lifecycle_of(app), drain_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        yield

    def _stop(self, name: str) -> None:
        if self.should_exit:
            log.get().warning("not waiting for open requests", signal=name)
            self.force_exit = True
        elif self.lifecycle.draining:
            log.get().info("drain cut short", signal=name)
            self.should_exit = True
        else:
            log.get().info("draining", signal=name, seconds=self.drain_seconds)
            self.lifecycle.drain()
            asyncio.get_running_loop().call_later(self.drain_seconds, self._close)

    def _close(self) -> None:
        self.should_exit = True

    @staticmethod
    def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Ignore a failed DNS lookup of a cancelled connection: uvloop does not cancel the lookup, and the caller has
        its timeout already."""
        if isinstance(context.get("exception"), socket.gaierror) and "future" in context:
            log.get().debug("name not found", error=str(context["exception"]))
        else:
            loop.default_exception_handler(context)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        Watchdog().start()
        await super()._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        address = self.servers[0].sockets[0].getsockname() if self.started else None
        log.get().info("serving", address=address)


def serve(app: FastAPI) -> None:
    """Serve until a signal says stop."""
    settings: Settings = app.state.settings
    config = uvicorn.Config(
        app,
        host="0.0.0.0",  # noqa: S104 - a container's own network
        port=settings.port,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.grace_seconds),
    )
    server = Server(config, app, settings.drain_seconds)
    # Objects loaded by now are permanent: exclude them from garbage collection, which would delay requests.
    gc.freeze()
    gc.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve())
    log.get().info("stopped")
