"""HTTP/1.1 over TLS, as a careful client speaks it, and nothing that would hide a loss: no retries, no redirects.

A kept-alive connection that is found closed before anything was sent is replaced. From the first byte sent, a request
is answered or lost: nobody can know whether the server has seen it, so no client may repeat a POST by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class Lost(Exception):
    """No answer. reason: connect, eof, reset or timeout."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(reason, str(detail))
        self.reason = reason


@dataclass(frozen=True)
class Request:
    """What to ask. headers: without those that belong to the connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Endpoint:
    """Where to connect to, and as whom to address it: through a relay these differ."""

    address: tuple[str, int]
    authority: str  # Host, :authority
    tls: ssl.SSLContext

    @property
    def name(self) -> str:
        """The host name that the certificate must have."""
        return self.authority.partition(":")[0]


def trusting(authority: Path, *protocols: str) -> ssl.SSLContext:
    """A TLS context that trusts this certificate authority and no other. protocols: to offer by ALPN."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols([*protocols] or ["http/1.1"])
    return context


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._endpoint, self._reader, self._writer = endpoint, reader, writer
        self.reusable = True

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Connection:
        """Connect. Raises Lost."""
        try:
            streams = await asyncio.open_connection(
                *endpoint.address, ssl=endpoint.tls, server_hostname=endpoint.name, ssl_handshake_timeout=15
            )
        except (OSError, ssl.SSLError) as error:
            raise Lost("connect", error) from None
        return cls(endpoint, *streams)

    @property
    def closed(self) -> bool:
        """Whether the server is known to have closed it."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def ask(self, request: Request, *, keep: bool) -> Answer:
        """Send a request and read its answer; without `keep` the server learns that it is the only one. Raises Lost."""
        try:
            self._writer.write(self._encoded(request, keep))
            answer = await self._read()
        except asyncio.IncompleteReadError as error:
            raise Lost("eof", f"after {len(error.partial)} bytes") from None
        except (OSError, ssl.SSLError) as error:
            raise Lost("reset", error) from None
        self.reusable = keep and "close" not in answer.headers.get("connection", "").lower()
        return answer

    def _encoded(self, request: Request, keep: bool) -> bytes:
        headers = {"Host": self._endpoint.authority, **request.headers}
        if request.body or request.method == "POST":
            headers["Content-Length"] = str(len(request.body))
        if not keep:
            headers["Connection"] = "close"
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body

    async def _read(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return Answer(status, headers, await self._body(status, headers))

    async def _body(self, status: int, headers: Mapping[str, str]) -> bytes:
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")  # no trailers are sent here
        return b"".join(parts)

    def close(self) -> None:
        """Close without waiting."""
        self._writer.close()


class Fresh:
    """A new connection for every request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""
        connection = await Connection.open(self._endpoint)
        try:
            return await connection.ask(request, keep=False)
        finally:
            connection.close()

    def close(self) -> None:
        """Nothing is kept."""


class Kept:
    """Clients with a kept-alive connection each, that send in turn: each connection idles while the others are used.

    A client that still waits for an answer when it is its turn again opens one more for this request: nobody ever waits
    for another one's answer.

    Attributes:
        reopened: how often a connection was found closed before anything was sent.
    """

    def __init__(self, endpoint: Endpoint, clients: int = 50) -> None:
        self._endpoint = endpoint
        self._idle: list[Connection | None] = [None] * clients
        self._turn = itertools.cycle(range(clients))
        self.reopened = 0

    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""
        client = next(self._turn)
        # Two turns of the loop: it asks the kernel what has arrived, and acts on it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection = self._take(client) or await Connection.open(self._endpoint)
        try:
            answer = await connection.ask(request, keep=True)
        except BaseException:
            connection.close()
            raise
        if connection.reusable and self._idle[client] is None:
            self._idle[client] = connection
        else:
            connection.close()
        return answer

    def _take(self, client: int) -> Connection | None:
        connection, self._idle[client] = self._idle[client], None
        if connection and connection.closed:
            connection.close()
            self.reopened += 1
            return None
        return connection

    def close(self) -> None:
        """Close those that are idle."""
        for connection in self._idle:
            if connection:
                connection.close()
