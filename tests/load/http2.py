"""HTTP/2 over TLS with the library h2: kept-open connections, many streams at a time.

A server that goes away says which stream was the last it will answer (GOAWAY). Streams above that were not processed
and may be sent anew on another connection (RFC 9113, 6.8 and 8.7): that is the protocol and not a guess, so it is no
retry. It is counted all the same.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hyperframe.frame import Frame, GoAwayFrame

from tests.load.client import Answer, Endpoint, Lost, Request

_FRAME_HEADER = 9  # bytes


class Unprocessed(Exception):
    """The server has said that it did not, and will not, look at this stream."""


class _Stream:
    """An answer as it comes in."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def finish(self) -> None:
        if not self.done.done():
            headers = {name: value for name, value in self.headers.items() if not name.startswith(":")}
            self.done.set_result(Answer(int(self.headers[":status"]), headers, bytes(self.body)))

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Connection:
    """One connection.

    Attributes:
        leaving: the server takes no further streams.
    """

    def __init__(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._endpoint, self._reader, self._writer = endpoint, reader, writer
        self._protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._received = bytearray()
        self.leaving = False
        self._protocol.initiate_connection()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Connection:
        """Connect. Raises Lost."""
        try:
            reader, writer = await asyncio.open_connection(
                *endpoint.address, ssl=endpoint.tls, server_hostname=endpoint.name, ssl_handshake_timeout=15
            )
        except (OSError, ssl.SSLError) as error:
            raise Lost("connect", error) from None
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen != "h2":
            raise Lost("connect", f"the server speaks {chosen}, not h2")
        return cls(endpoint, reader, writer)

    async def ask(self, request: Request) -> Answer:
        """Send a request as a stream of its own. Raises Lost, Unprocessed."""
        headers = [
            (":method", request.method),
            (":path", request.path),
            (":scheme", "https"),
            (":authority", self._endpoint.authority),
            *((name.lower(), value) for name, value in request.headers.items()),
        ]
        if request.body or request.method == "POST":
            headers.append(("content-length", str(len(request.body))))
        number = self._protocol.get_next_available_stream_id()
        stream = self._streams[number] = _Stream()
        self._protocol.send_headers(number, headers, end_stream=not request.body)
        if request.body:  # far smaller than any window
            self._protocol.send_data(number, request.body, end_stream=True)
        self._flush()
        try:
            return await stream.done
        finally:
            del self._streams[number]
            if self.leaving and not self._streams:
                self.close()

    def _flush(self) -> None:
        self._writer.write(self._protocol.data_to_send())

    async def _read(self) -> None:
        reason = "eof"
        try:
            while data := await self._reader.read(65536):
                self._received += data
                for frame in self._frames():
                    self._take(frame)
                self._flush()
        except (OSError, ssl.SSLError, h2.exceptions.ProtocolError) as error:
            reason = "protocol" if isinstance(error, h2.exceptions.ProtocolError) else "reset"
        self.leaving = True
        for stream in self._streams.values():
            stream.fail(Lost(reason))
        self._writer.close()

    def _frames(self) -> list[bytes]:
        """The whole frames that have arrived."""
        found = []
        while len(self._received) >= _FRAME_HEADER:
            size = _FRAME_HEADER + int.from_bytes(self._received[:3])
            if len(self._received) < size:
                break
            found.append(bytes(self._received[:size]))
            del self._received[:size]
        return found

    def _take(self, frame: bytes) -> None:
        parsed, _ = Frame.parse_frame_header(memoryview(frame[:_FRAME_HEADER]))
        if isinstance(parsed, GoAwayFrame):
            # Not for h2: it takes a connection for closed from then on, and the answers under way for errors.
            parsed.parse_body(memoryview(frame[_FRAME_HEADER:]))
            self._go_away(parsed.last_stream_id)
            return
        for event in self._protocol.receive_data(frame):
            stream = self._streams.get(getattr(event, "stream_id", None) or 0)
            if stream is None:
                continue
            match event:
                case h2.events.ResponseReceived(headers=headers):
                    stream.headers.update(headers)
                case h2.events.DataReceived(data=data, flow_controlled_length=length, stream_id=number):
                    stream.body += data
                    self._protocol.acknowledge_received_data(length, number)
                case h2.events.StreamEnded():
                    stream.finish()
                case h2.events.StreamReset(error_code=h2.errors.ErrorCodes.REFUSED_STREAM):
                    stream.fail(Unprocessed())
                case h2.events.StreamReset(error_code=code):
                    stream.fail(Lost("reset", code))

    def _go_away(self, last: int) -> None:
        self.leaving = True
        for number, stream in self._streams.items():
            if number > last:
                stream.fail(Unprocessed())
        if not self._streams:
            self.close()

    def close(self) -> None:
        """Close without waiting."""
        self.leaving = True
        self._reading.cancel()
        self._writer.close()


class Multiplexed:
    """A few connections that all requests share.

    Attributes:
        resent: streams that the server did not process and that went out again on another connection.
        reopened: connections made because one was leaving.
    """

    def __init__(self, endpoint: Endpoint, size: int = 4) -> None:
        self._endpoint = endpoint
        self._slots: list[asyncio.Task[Connection] | None] = [None] * size
        self._turn = itertools.cycle(range(size))
        self.resent = self.reopened = 0

    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""
        while True:
            connection = await self._take(next(self._turn))
            try:
                return await connection.ask(request)
            except Unprocessed:
                self.resent += 1

    async def _take(self, slot: int) -> Connection:
        """The connection of a slot, opened by whoever comes first."""
        opening = self._slots[slot]
        if opening is None or (opening.done() and (opening.exception() or opening.result().leaving)):
            self.reopened += opening is not None
            opening = self._slots[slot] = asyncio.create_task(Connection.open(self._endpoint))
        connection = await asyncio.shield(opening)
        return connection if not connection.leaving else await self._take(slot)

    def close(self) -> None:
        """Close all."""
        for opening in self._slots:
            if opening and opening.done() and not opening.exception():
                opening.result().close()
