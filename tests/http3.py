"""A client for HTTP/3, for one request. It takes any certificate."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent


@dataclass
class Answer:
    """What came back. headers: by their names in small letters; `:status` is the status."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class _Client(QuicConnectionProtocol):
    """Collects the answer to the only request of a connection."""

    answer: Answer
    complete: asyncio.Future[Answer]
    http: H3Connection

    def send(self, lines: list[tuple[str, str]], body: bytes) -> asyncio.Future[Answer]:
        self.http, self.answer, self.complete = H3Connection(self._quic), Answer(), self._loop.create_future()
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, [(name.encode(), value.encode()) for name, value in lines], end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return self.complete

    def quic_event_received(self, event: QuicEvent) -> None:
        for each in self.http.handle_event(event) if hasattr(self, "http") else ():
            self.received(each)

    def received(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.answer.headers |= {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, DataReceived):
            self.answer.body += event.data
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended and not self.complete.done():
            self.complete.set_result(self.answer)


def ask(port: int, name: str, target: str, *, sni: str | None = None, method: str = "GET", body: bytes = b"") -> Answer:
    """One request to a port of this machine. sni: the name in the TLS handshake, that of the request when left out.

    Raises ConnectionError when the handshake fails, TimeoutError after 10 seconds.
    """
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name=name if sni is None else sni
    )
    lines = [(":method", method), (":scheme", "https"), (":authority", name), (":path", target)]

    async def once() -> Answer:
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=_Client) as client:
            assert isinstance(client, _Client)
            return await client.send(lines, body)

    return asyncio.run(asyncio.wait_for(once(), 10))
