"""The items over HTTP, with a store in memory and a Redis in memory."""

import json
import uuid

import httpx
import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from api.app import create_app
from api.items import uuid7


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def app(environment, store, server):
    auth = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={})), base_url="http://a")
    return create_app(store=store, redis=FakeAsyncRedis(server=server), auth=auth)


async def made(client, headers, title: str = "one", **extra) -> dict:
    answer = await client.post("/api/v1/items", json={"title": title, "body": "text"}, headers=headers | extra)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_create_and_read(app, client_of, ann, store) -> None:
    async with client_of(app) as client:
        item = await made(client, ann | {"X-Request-ID": "r1"})
        assert (item["title"], item["body"], item["owner_email"]) == ("one", "text", "ann@example.com")
        answer = await client.get(f"/api/v1/items/{item['id']}", headers=ann)
        assert answer.json() == item
    (event,) = store.told
    assert (event.type, event.request_id, str(event.id)) == ("item.created", "r1", event.payload["id"])
    assert event.payload["data"] == {
        "item_id": item["id"],
        "title": "one",
        "owner_id": item["owner_id"],
        "owner_email": "ann@example.com",
    }
    json.dumps(event.payload)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic x"}])
async def test_nobody_gets_in_without_a_token(app, client_of, method: str, header: dict) -> None:
    async with client_of(app) as client:
        answer = await client.request(method, "/api/v1/items", headers=header)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "item", [{}, {"title": ""}, {"title": "  "}, {"title": "x" * 201}, {"title": "a\x00b"}, {"title": "x", "body": 1}]
)
async def test_what_is_no_item(app, client_of, ann, item: dict) -> None:
    async with client_of(app) as client:
        assert (await client.post("/api/v1/items", json=item, headers=ann)).status_code == 422


async def test_the_same_key_makes_one_item(app, client_of, ann, bob, store) -> None:
    async with client_of(app) as client:
        first = await made(client, ann, **{"Idempotency-Key": "k"})
        assert await made(client, ann, **{"Idempotency-Key": "k"}) == first
        assert (await made(client, bob, **{"Idempotency-Key": "k"}))["id"] != first["id"]
        other = await client.post("/api/v1/items", json={"title": "two"}, headers=ann | {"Idempotency-Key": "k"})
        assert other.status_code == 422
    assert len(store.told) == 2


async def test_other_peoples_items_do_not_exist(app, client_of, ann, bob, root) -> None:
    async with client_of(app) as client:
        item = await made(client, ann)
        path = f"/api/v1/items/{item['id']}"
        assert (await client.get(path, headers=ann)).status_code == 200  # and now it is in the cache
        assert (await client.get(path, headers=ann)).headers["x-cache"] == "hit"
        for answer in (
            await client.get(path, headers=bob),
            await client.patch(path, headers=bob, json={"title": "mine"}),
            await client.delete(path, headers=bob),
        ):
            assert answer.status_code == 404
        assert (await client.get("/api/v1/items", headers=bob)).json()["items"] == []
        assert (await client.get(path, headers=root)).json() == item
        assert (await client.get("/api/v1/items", headers=root)).json()["items"] == [item]


async def test_the_cache(app, client_of, ann, store, server) -> None:
    async with client_of(app) as client:
        path = f"/api/v1/items/{(await made(client, ann))['id']}"
        seen = [(await client.get(path, headers=ann)).headers["x-cache"] for _ in range(3)]
        assert (seen, store.reads) == (["miss", "hit", "hit"], 1)
        fresh = await client.get(path, headers=ann, params={"fresh": "1"})
        assert (fresh.headers["x-cache"], fresh.headers["x-database"], store.reads) == ("bypass", "replica", 2)


async def test_a_change_is_seen_at_once(app, client_of, ann) -> None:
    async with client_of(app) as client:
        path = f"/api/v1/items/{(await made(client, ann))['id']}"
        await client.get(path, headers=ann)
        changed = await client.patch(path, headers=ann, json={"title": "two"})
        assert (changed.json()["title"], changed.json()["body"]) == ("two", "text")
        read = await client.get(path, headers=ann)
        # A replica may not have it yet, so the primary is asked, and nothing is kept for a while.
        assert (read.json(), read.headers["x-cache"]) == (changed.json(), "bypass")
        assert read.headers["x-database"] == "primary"
        assert (await client.delete(path, headers=ann)).status_code == 204
        assert (await client.get(path, headers=ann)).status_code == 404


async def test_a_slow_reader_cannot_put_the_old_item_back(app, client_of, ann, store) -> None:
    async with client_of(app) as client:
        item = await made(client, ann)
        old = store.items[uuid.UUID(item["id"])]
        await client.patch(f"/api/v1/items/{item['id']}", headers=ann, json={"title": "two"})
        await app.state.cache.fill(old)  # read before the change, filled in after it
        assert (await client.get(f"/api/v1/items/{item['id']}", headers=ann)).json()["title"] == "two"


async def test_without_redis_everything_works(app, client_of, ann, server) -> None:
    server.connected = False
    async with client_of(app) as client:
        path = f"/api/v1/items/{(await made(client, ann))['id']}"
        answer = await client.get(path, headers=ann)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "bypass")
        assert (await client.patch(path, headers=ann, json={"title": "two"})).status_code == 200
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"], ready.json()["missing"]) == (200, "degraded", ["redis"])


async def test_pages_follow_each_other(app, client_of, ann) -> None:
    async with client_of(app) as client:
        ids = [(await made(client, ann, f"item {n}"))["id"] for n in range(5)]
        seen, before = [], None
        for _ in range(3):
            params = {"limit": 2, **({"before": before} if before else {})}
            page = (await client.get("/api/v1/items", headers=ann, params=params)).json()
            seen += [item["id"] for item in page["items"]]
            before = page["next"]
        assert (seen, before) == (ids[::-1], None)
        assert (await client.get("/api/v1/items?limit=101", headers=ann)).status_code == 422
        assert (await client.get("/api/v1/items?before=x", headers=ann)).status_code == 422


async def test_what_is_for_one_person_is_not_kept_by_caches(app, client_of, ann) -> None:
    async with client_of(app) as client:
        item = await made(client, ann)
        for path in ("/api/v1/items", f"/api/v1/items/{item['id']}"):
            assert (await client.get(path, headers=ann)).headers["cache-control"] == "no-store"


async def test_the_state_of_the_stack_is_not_public(app, client_of) -> None:
    async with client_of(app) as client:
        assert (await client.get("/api/v1/status")).status_code == 404


def test_ids_are_ordered_by_time() -> None:
    ids = [uuid7() for _ in range(3)]
    assert all(i.version == 7 and i.variant == uuid.RFC_4122 for i in ids)
    assert uuid7().int >> 80 >= ids[0].int >> 80


async def test_it_starts_without_anything_it_depends_on(environment, client_of, ann, tmp_path) -> None:
    environment.setenv("DATABASE_HOSTS", str(tmp_path))
    environment.setenv("DATABASE_DEADLINE", "0.5")
    environment.setenv("REDIS_HOST", "127.0.0.1")
    environment.setenv("REDIS_PORT", "1")
    environment.setenv("RABBITMQ_HOSTS", "127.0.0.1:1")
    environment.setenv("AUTH_URL", "http://127.0.0.1:1")
    async with client_of(create_app()) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["missing"] == ["database", "database-replica", "rabbitmq", "redis", "auth"]
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/api/v1/items", headers=ann)).status_code == 503
        assert (await client.post("/api/v1/auth/login", json={})).status_code == 502


@pytest.mark.parametrize("kept", ["memory", "postgresql"])
async def test_no_bytes_make_it_fail(environment, client_of, attack, ann, store, request, kept: str) -> None:
    auth = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={})), base_url="http://a")
    if kept == "postgresql":
        cluster = request.getfixturevalue("cluster")
        environment.setenv("DATABASE_HOSTS", f"{cluster.primary}:5432,{cluster.standby}:5432")
        environment.setenv("RABBITMQ_HOSTS", "127.0.0.1:1")
        app = create_app(redis=FakeAsyncRedis(), auth=auth)
    else:
        app = create_app(store=store, redis=FakeAsyncRedis(), auth=auth)
    headers = [(name.lower().encode(), value.encode()) for name, value in ann.items()]
    async with client_of(app):
        example, stored = {"title": "x", "body": "y"}, kept == "postgresql"
        assert await attack(app, headers, example, as_form=False, stored=stored).failures() == []


async def test_broken_json_is_called_that(app, client_of, ann) -> None:
    headers = ann | {"Content-Type": "application/json"}
    async with client_of(app) as client:
        answer = await client.post("/api/v1/items", content=b'{"title": "x", "body": ', headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "", "message": "the body is not valid JSON, see character 23"}]
