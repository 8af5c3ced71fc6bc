"""Forwards /api/v1/auth/* to the auth service."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from stack import log
from stack.contract import Account, Credentials, RefreshRequest, Tokens
from stack.problems import Problem, Unavailable, documented

# RFC 9110 7.6.1, and what this hop sets itself.
_HOP = {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"}
_HOP |= {b"transfer-encoding", b"upgrade"}
_OURS = {b"host", b"content-length", b"x-request-id", b"x-served-by", b"date", b"server", b"accept-encoding"}
MAX_BODY = 64 * 1024
# Nothing that a URL library could read as another host or path.
_PATH = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
_QUERY = "".join(map(chr, range(0x21, 0x7F)))

routes = APIRouter()


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that go to the next hop: without hop-by-hop ones and those that Connection names.

    Bytes, because a header may hold any: decoding and encoding again would fail for some, and change others.
    """
    given = [(name.lower(), value) for name, value in headers]
    listed = b",".join(value for name, value in given if name == b"connection")
    skip = _HOP | _OURS | {name.strip().lower() for name in listed.split(b",")}
    return [(name, value) for name, value in given if name not in skip]


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


async def forward(path: str, request: Request) -> Response:
    """Forward a request to the auth service, and its response to the client."""
    if not _PATH.fullmatch(path):
        raise Problem(404, "Not Found")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Problem(413, f"a request to this address may have at most {MAX_BODY // 1024} KiB")
    headers = forwarded(request.headers.raw)
    headers += [(b"x-request-id", log.request_id().encode()), (b"accept-encoding", b"identity")]
    outgoing: httpx.AsyncClient = request.app.state.auth
    # a query may hold bytes that are not ASCII, which a URL may not
    query = quote_from_bytes(request.scope["query_string"], safe=_QUERY).encode()
    url = outgoing.base_url.join(f"v1/auth/{path}").copy_with(query=query or None)
    try:
        answer = await _send(outgoing, request.method, url, headers, body)
    except httpx.LocalProtocolError as error:
        raise Problem(400, "a header of this request is not valid in HTTP") from error
    except httpx.PoolTimeout as error:
        raise Unavailable("the auth service") from error
    except httpx.TimeoutException as error:
        raise Unavailable("the auth service", 504) from error
    except httpx.HTTPError as error:
        raise Unavailable("the auth service", 502) from error
    response = Response(answer.content, answer.status_code)
    response.raw_headers += forwarded(answer.headers.raw)
    return response


@dataclass(frozen=True)
class Described:
    """A route of the auth service, for OpenAPI. The auth service validates requests, not the gateway."""

    path: str
    summary: str
    takes: type[BaseModel] | None
    gives: type[BaseModel] | None
    status: int = 200
    errors: tuple[int, ...] = ()


DESCRIBED = (
    Described("register", "Open an account.", Credentials, Account, 201, (409, 422)),
    Described("login", "Exchange a password for tokens.", Credentials, Tokens, 200, (401, 422, 429)),
    Described("refresh", "Exchange a refresh token for new tokens.", RefreshRequest, Tokens, 200, (401, 422)),
    Described("logout", "End a login.", RefreshRequest, None, 204, (422,)),
    Described("me", "The account that the access token speaks for.", None, Account, 200, (401,)),
)


def _route(described: Described) -> None:
    body: dict[str, Any] = {"security": [{"HTTPBearer": []}]}
    if described.takes:
        schema = described.takes.model_json_schema()
        body = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    routes.add_api_route(
        f"/api/v1/auth/{described.path}",
        partial(forward, described.path),
        methods=["POST" if described.takes else "GET"],
        status_code=described.status,
        summary=described.summary,
        name=f"auth_{described.path}",
        responses={described.status: {"model": described.gives}, **documented(400, *described.errors, 502, 503, 504)},
        response_class=Response,
        openapi_extra=body,
    )


for _described in DESCRIBED:
    _route(_described)
routes.add_api_route("/api/v1/auth/{path:path}", forward, methods=["GET", "POST"], include_in_schema=False)


async def _send(
    outgoing: httpx.AsyncClient, method: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes
) -> httpx.Response:
    try:
        return await outgoing.request(method, url, headers=headers, content=body)
    except httpx.ConnectError:
        # Nothing was sent: one more try cannot do anything twice.
        return await outgoing.request(method, url, headers=headers, content=body)
