"""The pages, with a stand-in for the api behind them."""

import asyncio
import base64
import json
import re
import time
import uuid

import httpx
import pytest

from web.app import create_app
from web.session import ACCESS, REFRESH

USER = str(uuid.uuid4())


def token(expires_in: float = 900) -> str:
    claims = {"email": "ann@example.com", "exp": time.time() + expires_in, "jti": uuid.uuid4().hex}
    return f"x.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


class FakeApi:
    """Just enough of the api: one account, items in a list, refresh tokens that work once."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.items: list[dict] = []
        self.refresh_tokens = {"r0"}
        self.away: httpx.HTTPError | int | None = None

    def issue(self) -> dict:
        refresh = uuid.uuid4().hex
        self.refresh_tokens.add(refresh)
        return {"access_token": token(), "refresh_token": refresh, "expires_in": 900, "token_type": "Bearer"}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await asyncio.sleep(0)
        if isinstance(self.away, Exception):
            raise self.away
        if self.away:
            return httpx.Response(self.away, text="<html>a proxy's page</html>")
        return self.answer(request.method, request.url.path, json.loads(request.content or b"{}"), request.headers)

    def answer(self, method: str, path: str, body: dict, headers: httpx.Headers) -> httpx.Response:
        problem = httpx.Response(401, json={"detail": "wrong e-mail address or password"})
        match path:
            case "/health/ready":
                states = {"database": "failed", "auth": "ok"}
                checks = {name: {"status": state} for name, state in states.items()}
                return httpx.Response(200, json={"status": "degraded", "checks": checks})
            case "/api/v1/auth/register":
                short = len(body["password"]) < 12
                said = {"detail": "password: needs at least 12 characters"}
                return httpx.Response(422, json=said) if short else httpx.Response(201, json={"id": USER})
            case "/api/v1/auth/login":
                return httpx.Response(200, json=self.issue()) if body["password"].startswith("correct") else problem
            case "/api/v1/auth/refresh":
                known = body["refresh_token"] in self.refresh_tokens
                self.refresh_tokens.discard(body["refresh_token"])
                return httpx.Response(200, json=self.issue()) if known else problem
            case "/api/v1/auth/logout":
                self.refresh_tokens.discard(body["refresh_token"])
                return httpx.Response(204)
        if not headers.get("authorization", "").startswith("Bearer x."):
            return problem
        if path == "/api/v1/auth/me":
            return httpx.Response(200, json={"id": USER, "email": "ann@example.com", "roles": ["user"]})
        if method == "POST":
            if not body["title"].strip():
                return httpx.Response(422, json={"detail": "title: too short"})
            moment = "2026-11-23T10:00:00+00:00"
            self.items.insert(0, {"id": str(uuid.uuid4()), "created_at": moment, **body})
            return httpx.Response(201, json=self.items[0])
        return httpx.Response(200, json={"items": self.items, "next": None})


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def app(api: FakeApi, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("API_URL", "http://api:8000")
    monkeypatch.setenv("UPLOAD_DIR", str(tmp_path))
    monkeypatch.setenv("UPLOAD_MAX_MB", "1")
    return create_app(http=httpx.AsyncClient(transport=httpx.MockTransport(api), base_url="http://api:8000"))


def log_in(client: httpx.AsyncClient, access: str | None = None) -> None:
    client.cookies.set(ACCESS, access or token())
    client.cookies.set(REFRESH, "r0")


@pytest.mark.parametrize("path", ["/", "/uploads", "/uploads/abc"])
async def test_pages_for_known_people_lead_to_the_login(app, client_of, path: str) -> None:
    async with client_of(app) as client:
        answer = await client.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == ("/login" if path == "/" else f"/login?next={path.replace('/', '%2F')}")


async def test_register_log_out_log_in(app, client_of) -> None:
    async with client_of(app) as client:
        page = await client.get("/register")
        assert all(f'name="{name}"' in page.text for name in ("email", "password"))
        answer = await client.post("/register", data={"email": "ann@example.com", "password": "correct horse"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-")
            assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
            assert "Domain" not in cookie
        assert "ann@example.com" in (await client.get("/")).text
        left = await client.post("/logout")
        assert left.headers["location"] == "/login?done=left"
        assert (await client.get("/")).status_code == 303
        data = {"email": "ann@example.com", "password": "correct horse", "next": "/uploads"}
        assert (await client.post("/login", data=data)).headers["location"] == "/uploads"


async def test_what_is_wrong_is_said_beside_the_form(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.post("/register", data={"email": "a<b@example.com", "password": "short"})
        assert answer.status_code == 422
        assert "at least 12 characters" in answer.text
        assert "a&lt;b@example.com" in answer.text
        answer = await client.post("/login", data={"email": "ann@example.com", "password": "wrong"})
        assert (answer.status_code, "wrong e-mail address or password" in answer.text) == (401, True)
        assert "set-cookie" not in answer.headers


async def test_items(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        log_in(client)
        page = await client.get("/")
        key = re.search(r'name="key" value="(\w+)"', page.text)[1]
        answer = await client.post("/items", data={"title": "<b>one</b>", "body": "a\r\nb", "key": key})
        assert (answer.status_code, answer.headers["location"]) == (303, "/?done=created")
        assert api.requests[-1].headers["idempotency-key"] == key
        assert json.loads(api.requests[-1].content)["body"] == "a\nb"
        page = await client.get("/?done=created")
        assert "&lt;b&gt;one&lt;/b&gt;" in page.text
        assert page.headers["cache-control"] == "no-store"
        wrong = await client.post("/items", data={"title": " ", "body": "kept", "key": key})
        assert (wrong.status_code, "title: too short" in wrong.text, "kept" in wrong.text) == (422, True, True)


async def test_the_request_id_goes_to_the_api(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        log_in(client)
        await client.get("/", headers={"X-Request-ID": "r1"})
    assert [request.headers["x-request-id"] for request in api.requests] == ["r1"]


async def test_the_address_of_the_visitor_goes_to_the_api(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        for address in ("192.0.2.1", "2001:db8::1", "é"):
            data = {"email": "ann@example.com", "password": "correct horse"}
            await client.post("/login", data=data, headers=[(b"X-Forwarded-For", address.encode())])
    assert [request.headers.get("x-forwarded-for") for request in api.requests] == ["192.0.2.1", "2001:db8::1", None]


async def test_an_old_token_is_renewed_on_the_way(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        log_in(client, token(expires_in=5))
        answer = await client.get("/")
        assert answer.status_code == 200
        assert {cookie.partition("=")[0] for cookie in answer.headers.get_list("set-cookie")} == {ACCESS, REFRESH}
        assert [request.url.path for request in api.requests] == ["/api/v1/auth/refresh", "/api/v1/items"]


async def test_requests_that_come_together_share_one_refresh(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        cookies = f"{ACCESS}={token(5)}; {REFRESH}=r0"
        answers = await asyncio.gather(*(client.get("/", headers={"Cookie": cookies}) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert sum(request.url.path.endswith("/refresh") for request in api.requests) == 1


async def test_a_session_that_is_over_ends_at_the_login(app, client_of, api: FakeApi) -> None:
    api.refresh_tokens.clear()
    async with client_of(app) as client:
        log_in(client, token(5))
        answer = await client.get("/uploads")
        assert answer.headers["location"] == "/login?next=%2Fuploads"
        assert all("Max-Age=0" in cookie for cookie in answer.headers.get_list("set-cookie"))


@pytest.mark.parametrize("away", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), 502, 503, 504])
@pytest.mark.parametrize("age", [5, 900])
async def test_the_session_outlives_an_outage(app, client_of, api: FakeApi, away, age: float) -> None:
    async with client_of(app) as client:
        log_in(client, token(age))
        api.away = away
        answer = await client.get("/", headers={"X-Request-ID": "r9"})
        assert answer.status_code in (503, 504)
        assert "set-cookie" not in answer.headers
        assert "r9" in answer.text
        assert "You are still logged in" in answer.text
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["missing"]) == (200, ["api"])
        api.away = None
        assert (await client.get("/")).status_code == 200


async def test_forms_of_other_sites_are_refused(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        log_in(client)
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            answer = await client.post("/items", data={"title": "x"}, headers=headers)
            assert answer.status_code == 403
    assert not api.requests


async def test_uploads(app, client_of) -> None:
    async with client_of(app) as client:
        log_in(client)
        answer = await client.post("/uploads", files={"file": ("<i>.html", b"<script>1</script>")})
        assert (answer.status_code, answer.headers["location"]) == (303, "/uploads?done=uploaded")
        page = await client.get("/uploads")
        path = re.search(r'href="(/uploads/[0-9a-f]{32})"', page.text)[1]
        file = await client.get(path)
        assert file.content == b"<script>1</script>"
        assert file.headers["content-type"] == "application/octet-stream"
        assert file.headers["content-disposition"].startswith("attachment")
        assert file.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in file.headers["content-security-policy"]
        large = await client.post("/uploads", files={"file": ("big", b"x" * (1024 * 1024 + 1))})
        assert (large.status_code, "at most 1 MiB" in large.text) == (413, True)
        assert (await client.post(f"{path}/delete")).status_code == 303
        assert (await client.get(path)).status_code == 404


async def test_status(app, client_of, api: FakeApi) -> None:
    async with client_of(app) as client:
        page = (await client.get("/status")).text
        assert ("degraded" in page, "database" in page) == (True, False)
        for away in (httpx.ConnectError("refused"), 502):
            api.away = away
            assert "unreachable" in (await client.get("/status")).text


async def test_the_site_has_its_name(app, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_NAME", "Müller & <Söhne>")
    async with client_of(create_app()) as client:
        page = (await client.get("/login")).text
    assert "<title>Log in · Müller &amp; &lt;Söhne&gt;</title>" in page
    assert ">Müller &amp; &lt;Söhne&gt;</a>" in page


async def test_errors_are_pages_with_the_request_id(app, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(app) as client:
        answer = await client.get("/nowhere", headers={"X-Request-ID": "r4"})
        assert (answer.status_code, "r4" in answer.text) == (404, True)
        assert answer.headers["content-type"].startswith("text/html")
        assert (await client.put("/login")).status_code == 405
        log_in(client)
        monkeypatch.setattr(app.state.api, "call_as", None)
        answer = await client.get("/", headers={"X-Request-ID": "r5"})
        assert (answer.status_code, "r5" in answer.text, "NoneType" in answer.text) == (500, True, False)


async def test_the_style_sheet(app, client_of) -> None:
    from web.pages import ASSETS

    async with client_of(app) as client:
        now = await client.get(ASSETS["style.css"].url)
        assert "immutable" in now.headers["cache-control"]
        # While old and new run side by side, a page of one may ask the other.
        other = await client.get("/static/style.0123456789ab.css")
        assert (other.status_code, other.headers["cache-control"]) == (200, "no-store")
        assert (await client.get("/static/x")).status_code == 404


async def test_no_bytes_make_a_page_fail(app, client_of, attack) -> None:
    log_in_headers = [(b"cookie", f"{ACCESS}={token()}; {REFRESH}=r0".encode())]
    example = {
        "email": "a@example.com",
        "password": "correct horse",
        "next": "/",
        "title": "x",
        "body": "y",
        "key": "0" * 32,
    }
    async with client_of(app):
        assert await attack(app, log_in_headers, example, as_form=True).failures() == []


@pytest.mark.parametrize("key", ["é", "a\r\nX-Injected: 1", "a\0", " ", "x" * 300])
async def test_a_key_that_the_form_did_not_make(app, client_of, api: FakeApi, key: str) -> None:
    async with client_of(app) as client:
        log_in(client)
        answer = await client.post("/items", data={"title": "x", "key": key})
    assert (answer.status_code, "Reload the page" in answer.text) == (422, True)
    assert not any(request.method == "POST" for request in api.requests)


async def test_a_form_with_too_many_fields(app, client_of) -> None:
    async with client_of(app) as client:
        answer = await client.post("/login", data={f"field{number}": "x" for number in range(21)})
    assert (answer.status_code, "at most 20 fields" in answer.text) == (400, True)


@pytest.mark.parametrize("cookie", ['"a\\012X: y"', "a b", "x" * 5000])
async def test_a_cookie_that_is_no_token_is_no_session(app, client_of, cookie: str) -> None:
    async with client_of(app) as client:
        answer = await client.get("/", headers={"Cookie": f"{ACCESS}={cookie}; {REFRESH}={cookie}"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
