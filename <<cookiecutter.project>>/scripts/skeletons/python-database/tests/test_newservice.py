from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from newservice.app import create_app
from newservice.settings import NewServiceSettings


class MemoryNotes:
    """Notes in a list."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def add(self, note: str) -> None:
        self.notes.insert(0, note)

    async def newest(self) -> list[str]:
        return self.notes


@pytest.fixture
def app() -> FastAPI:
    settings = NewServiceSettings(
        base_path="/base", database_hosts="nowhere", newservice_db_password=SecretStr("secret")
    )
    return create_app(settings, MemoryNotes())


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://new-service") as client,
    ):
        yield client


async def test_its_page_is_below_its_base_path(client: httpx.AsyncClient) -> None:
    assert (await client.get("/base/")).json() == {"message": "new-service works"}
    assert (await client.get("/elsewhere")).status_code == 404


async def test_what_is_written_down_is_read(client: httpx.AsyncClient) -> None:
    for note in ("one", "two"):
        assert (await client.post("/base/notes", json={"text": note})).status_code == 201
    assert (await client.get("/base/notes")).json() == ["two", "one"]
    assert (await client.post("/base/notes", json={"text": ""})).status_code == 422


async def test_it_is_ready_until_it_drains(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/ready")).status_code == 200
    app.state.lifecycle.drain()
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/base/")).status_code == 200
