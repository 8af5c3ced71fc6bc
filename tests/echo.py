"""A service for tests of the edge, in the standard library alone: it says what reached it, upgrades, and sends events.

`/close` hangs up without an answer, `/events` sends one event, waits a minute and sends another, `/download` has a
policy of its own, `…/ws` becomes an echo of bytes. Everything else answers with the request as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os

_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_INSIDE = "X-Served-By: container\r\nX-Cache: hit\r\nX-Database: replica\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and close."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    path = first.split()[1].partition("?")[0]
    if path.endswith("/ws") and headers.get("upgrade") == "websocket":
        digest = hashlib.sha1(headers["sec-websocket-key"].encode() + _WEBSOCKET).digest()
        accept = base64.b64encode(digest).decode()
        upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        writer.write(f"{upgraded}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        while data := await reader.read(1024):
            writer.write(data)
    elif path.endswith("/events"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
        await writer.drain()
        await asyncio.sleep(60)
        writer.write(b"data: 2\n\n")
    elif path != "/close":
        own = "Content-Security-Policy: sandbox\r\nCache-Control: private\r\n" if path == "/download" else ""
        body = json.dumps({"request": first, "headers": headers})
        answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{answer}{_INSIDE}{own}Connection: close\r\n\r\n{body}".encode())
    writer.close()


async def main() -> None:
    """Serve on the port of the stack's services."""
    async with await asyncio.start_server(serve, os.environ.get("HOST", "127.0.0.1"), 8000) as server:
        await server.serve_forever()


asyncio.run(main())
