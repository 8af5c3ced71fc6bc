from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from newservice.app import create_app
from newservice.settings import NewServiceSettings


@pytest.fixture
def app() -> FastAPI:
    return create_app(NewServiceSettings(base_path="/base"))


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


async def test_it_is_ready_until_it_drains(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/ready")).status_code == 200
    app.state.lifecycle.drain()
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/base/")).status_code == 200
