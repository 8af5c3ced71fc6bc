import asyncio
from unittest.mock import ANY

import httpx
import pytest
from fakeredis import FakeAsyncRedis

from api.app import create_app
from api.gateway import MAX_BODY


@pytest.fixture
def served(environment, store, client_of):
    """The api, with a function in place of the auth service."""

    def start(handler):
        auth = httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://internal:8081/auth-service")
        return client_of(create_app(store=store, redis=FakeAsyncRedis(), auth=auth))

    return start


async def test_requests_and_answers_pass_through(served) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        headers = [("X-Served-By", "auth-1"), ("X-Request-ID", "theirs"), ("Connection", "close"), ("X-Extra", "1")]
        return httpx.Response(429, json={"detail": "wait"}, headers=[*headers, ("Retry-After", "9")])

    async with served(handler) as client:
        answer = await client.post(
            "/api/v1/auth/login?a=1&b=2",
            json={"email": "x"},
            headers={"X-Request-ID": "r1", "Authorization": "Bearer t", "Connection": "X-Private", "X-Private": "1"},
        )
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://internal:8081/auth-service/v1/auth/login?a=1&b=2")
    assert request.content == b'{"email":"x"}'
    assert (request.headers["x-request-id"], request.headers["authorization"]) == ("r1", "Bearer t")
    assert request.headers["host"] == "internal:8081"
    assert "x-private" not in request.headers
    assert (answer.status_code, answer.json()) == (429, {"detail": "wait"})
    assert (answer.headers["retry-after"], answer.headers["x-extra"]) == ("9", "1")
    assert answer.headers.get_list("x-request-id") == ["r1"]
    assert answer.headers.get_list("x-served-by") != ["auth-1"]
    assert "connection" not in answer.headers


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (httpx.ConnectError("refused"), 502),
        (httpx.ReadError("reset"), 502),
        (httpx.RemoteProtocolError("half an answer"), 502),
        (httpx.PoolTimeout("busy"), 503),
        (httpx.ReadTimeout("slow"), 504),
        (httpx.ConnectTimeout("slow"), 504),
    ],
)
async def test_an_auth_service_that_is_away(served, failure: Exception, status: int) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise failure

    async with served(handler) as client:
        answer = await client.post("/api/v1/auth/login", json={}, headers={"X-Request-ID": "r1"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["request_id"], answer.headers["retry-after"]) == ("r1", "2")


async def test_a_refused_connection_is_tried_once_more_and_a_sent_request_never(served) -> None:
    failures: list[Exception] = [httpx.ConnectError("refused")]

    def handler(_: httpx.Request) -> httpx.Response:
        if failures:
            raise failures.pop()
        return httpx.Response(200, json={})

    async with served(handler) as client:
        assert (await client.post("/api/v1/auth/login", json={})).status_code == 200
        failures.append(httpx.ReadError("reset"))
        assert (await client.post("/api/v1/auth/login", json={})).status_code == 502


@pytest.mark.parametrize("path", ["../../health/ready", "%2e%2e/%2e%2e/metrics", "//evil.example/x"])
async def test_nothing_else_of_the_auth_service_can_be_reached(served, path: str) -> None:
    seen: list[httpx.URL] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        return httpx.Response(200, json={})

    async with served(handler) as client:
        request = client.build_request("GET", "https://example.com/")
        request.url = request.url.copy_with(raw_path=f"/api/v1/auth/{path}".encode())
        await client.send(request)
    assert all(url.host == "internal" and url.raw_path.startswith(b"/auth-service/v1/auth/") for url in seen)


async def test_the_description_of_auth_is_what_auth_does(served, secrets, environment) -> None:
    async with served(lambda _: httpx.Response(200)) as client:
        paths = (await client.get("/api/v1/openapi.json")).json()
    from auth.app import create_app as create_auth

    described = {path: methods for path, methods in paths["paths"].items() if path.startswith("/api/v1/auth/")}
    real = create_auth().openapi()["paths"]
    assert {path.removeprefix("/api") for path in described} == set(real)
    for path, methods in described.items():
        for method, operation in methods.items():
            own = real[path.removeprefix("/api")][method]
            assert min(operation["responses"]) == min(own["responses"])
            assert ("requestBody" in operation) == ("requestBody" in own)
            assert {"400", "503"} <= set(operation["responses"])
    assert paths["components"]["securitySchemes"] == {"HTTPBearer": ANY}
    assert described["/api/v1/auth/me"]["get"]["security"] == [{"HTTPBearer": []}]
    item = paths["paths"]["/api/v1/items/{item_id}"]["get"]
    assert item["security"] == [{"HTTPBearer": []}]
    assert {"200", "400", "401", "404", "422"} <= set(item["responses"])


async def test_a_body_has_its_limit(served) -> None:
    async with served(lambda _: httpx.Response(200)) as client:
        answer = await client.post("/api/v1/auth/login", content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413


async def test_header_bytes_pass_as_they_are(environment, store, client_of) -> None:
    """Through real connections, because it is the HTTP library that would refuse or change them."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nX-City: Z\xc3\xbcrich \xff\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    environment.setenv("AUTH_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, client_of(create_app(store=store, redis=FakeAsyncRedis())) as client:
        given = [(b"Cookie", b"name=Z\xc3\xbcrich"), (b"X-Any", bytes(range(0x80, 0x100)))]
        response = await client.get("/api/v1/auth/me", headers=given)
        assert response.status_code == 200
        assert (b"x-city", b"Z\xc3\xbcrich \xff") in response.headers.raw
        assert all(value in seen[0] for _, value in given)
        query = await client.get(httpx.URL("https://example.com/api/v1/auth/me", query=b"a=%C3%BC&b=1"))
        assert (query.status_code, b"/v1/auth/me?a=%C3%BC&b=1 " in seen[1]) == (200, True)
        # What no server would let in still is the client's mistake, not ours.
        refused = await client.get("/api/v1/auth/me", headers=[(b"X-Any", b"a\x00b")])
        assert refused.status_code == 400
