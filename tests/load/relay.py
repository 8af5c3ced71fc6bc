"""A network with a round trip: a TCP relay that delivers everything later, and nothing differently.

    python -m tests.load.relay --target 127.0.0.1:8443 [--target …] [--delay-ms 25]

Prints its own port, and relays until its standard input ends. On bare loopback the end of a connection arrives at
once, so no client ever has a request under way to a socket that has just been closed; users do. Bytes, their order,
half-closes and resets pass, each late by the delay; a connection takes a round trip to open. Throughput has no limit:
nothing is held back when one side is slow.

With several targets each connection goes to one of them by chance, and to another when that one does not answer: what a
browser does with a name that has several addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence

DELAY = 0.025  # seconds, each way
PATIENCE = 3  # seconds for a connection to a target, before the next one is tried
# A socket closed with this option sends a reset: what the other side of the relay has seen.
_RESET = struct.pack("ii", 1, 0)


class _End(asyncio.Protocol):
    """One end of a relayed connection. What arrives here leaves by `far`, later."""

    transport: asyncio.Transport
    far: _End

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.finished = False  # nothing more leaves here
        self._due: deque[Callable[[], None]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.later(lambda: self.far.send(data))

    def eof_received(self) -> bool:
        self.later(lambda: self.far.finish())
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        if exc:
            self.later(lambda: self.far.reset())

    def later(self, action: Callable[[], None]) -> None:
        # A timer each, but whichever fires does the oldest: order does not hang on timers that are due together.
        self._due.append(action)
        asyncio.get_running_loop().call_later(self.delay, lambda: self._due.popleft()())

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def finish(self) -> None:
        """End one direction; the second one to end closes both."""
        if self.finished or self.transport.is_closing():
            return
        self.finished = True
        with contextlib.suppress(OSError):  # the other side was reset in this moment: there is nobody to tell
            self.transport.write_eof()
        if self.far.finished:
            self.transport.close()
            self.far.transport.close()

    def reset(self) -> None:
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class _Front(_End):
    """The end at the client: nothing is read before the way to the target is open."""

    def __init__(self, targets: Sequence[tuple[str, int]], delay: float) -> None:
        super().__init__(delay)
        self._targets = random.sample(targets, len(targets))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Not at once: Python 3.11.2 begins to read after this call, whatever was said in it.
        asyncio.get_running_loop().call_soon(self.transport.pause_reading)
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        await asyncio.sleep(self.delay)
        back = await self._connect()
        await asyncio.sleep(self.delay)
        if back is None:
            self.reset()
            return
        self.far = back
        if not self.transport.is_closing():
            self.transport.resume_reading()

    async def _connect(self) -> _End | None:
        """Reach the first target that answers."""
        for target in self._targets:
            back = _End(self.delay)
            back.far = self
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.get_running_loop().create_connection(lambda back=back: back, *target)
                return back
        return None


async def start(targets: Sequence[tuple[str, int]], delay: float = DELAY) -> asyncio.Server:
    """Relay from a free port of 127.0.0.1 to one of `targets`; `delay` is in seconds, each way."""
    return await asyncio.get_running_loop().create_server(lambda: _Front(targets, delay), "127.0.0.1", 0, backlog=1024)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, action="append", help="HOST:PORT to relay to")
    parser.add_argument("--delay-ms", type=float, default=DELAY * 1000, help="each way")
    options = parser.parse_args()
    addresses = [target.rpartition(":") for target in options.target]
    server = await start([(host, int(port)) for host, _, port in addresses], options.delay_ms / 1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main())
