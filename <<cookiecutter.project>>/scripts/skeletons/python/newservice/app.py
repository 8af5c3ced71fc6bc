"""new-service: its pages. Health, metrics, logs and the end of the process are those of every service (`stack`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from stack import log
from stack.app import frame
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.settings import load

from newservice.settings import NewServiceSettings


def routes(base_path: str) -> APIRouter:
    """The pages. base_path: what public paths begin with."""
    router = APIRouter(prefix=base_path)

    @router.get("/")
    async def hello() -> dict[str, str]:
        return {"message": "new-service works"}

    return router


def create_app(settings: NewServiceSettings | None = None) -> FastAPI:
    """The application."""
    settings = settings or load(NewServiceSettings)
    log.configure(settings.service_name, settings.log_level)
    # health.add(NAME, probe) makes readiness ask for something that the service needs.
    health = Health(settings.service_name, Lifecycle())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    return frame(settings, health, lifespan, routes(settings.base_path))
