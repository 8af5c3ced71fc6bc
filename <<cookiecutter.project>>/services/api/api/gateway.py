"""Forwards /api/v1/auth/* to the auth service."""

import re
from typing import Any

import httpx
from fastapi import APIRouter, Request, Response

from stack import log
from stack.problems import Problem, Unavailable

# RFC 9110 7.6.1, and what this hop sets itself.
_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"}
_HOP |= {"transfer-encoding", "upgrade"}
_OURS = {"host", "content-length", "x-request-id", "x-served-by", "date", "server", "accept-encoding"}
MAX_BODY = 64 * 1024
# Nothing that a URL library would take for the way to another place.
_PATH = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")

routes = APIRouter()


def forwarded(headers: Any) -> list[tuple[str, str]]:
    """The headers that go to the next hop: without hop-by-hop ones and those that Connection names."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    skip = _HOP | _OURS | named
    return [(name, value) for name, value in headers.items() if name.lower() not in skip]


def client(base_url: str, timeout: float) -> httpx.AsyncClient:
    """A pool of connections to the next hop."""
    return httpx.AsyncClient(
        base_url=base_url,
        timeout=httpx.Timeout(timeout, connect=2, pool=2),
        # Idle connections are given up well before nginx does it, after 10 s (keepalive_timeout).
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3),
        follow_redirects=False,
        trust_env=False,
    )


@routes.api_route("/api/v1/auth/{path:path}", methods=["GET", "POST"], include_in_schema=False)
async def forward(path: str, request: Request) -> Response:
    """Hand a request to the auth service, and its answer back."""
    if not _PATH.fullmatch(path):
        raise Problem(404, "Not Found")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Problem(413, f"a request to this address may have at most {MAX_BODY // 1024} KiB")
    headers = [*forwarded(request.headers), ("x-request-id", log.request_id()), ("accept-encoding", "identity")]
    outgoing: httpx.AsyncClient = request.app.state.auth
    url = outgoing.base_url.join(f"/v1/auth/{path}").copy_with(query=request.scope["query_string"] or None)
    try:
        answer = await _send(outgoing, request.method, url, headers, body)
    except httpx.PoolTimeout as error:
        raise Unavailable("the auth service") from error
    except httpx.TimeoutException as error:
        raise Unavailable("the auth service", 504) from error
    except httpx.HTTPError as error:
        raise Unavailable("the auth service", 502) from error
    response = Response(answer.content, answer.status_code)
    for name, value in forwarded(answer.headers):
        response.headers.append(name, value)
    return response


async def _send(
    outgoing: httpx.AsyncClient, method: str, url: httpx.URL, headers: list[tuple[str, str]], body: bytes
) -> httpx.Response:
    try:
        return await outgoing.request(method, url, headers=headers, content=body)
    except httpx.ConnectError:
        # Nothing was sent: one more try cannot do anything twice.
        return await outgoing.request(method, url, headers=headers, content=body)
