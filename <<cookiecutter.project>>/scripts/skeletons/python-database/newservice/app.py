"""new-service: its pages. Health, metrics, logs and the end of the process are those of every service (`stack`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Body, Depends, FastAPI, Request

from stack import log
from stack.app import frame
from stack.database import Database
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.settings import load

from newservice.notes import Notes, PostgresNotes
from newservice.settings import NewServiceSettings


async def _notes(request: Request) -> Notes:
    notes: Notes = request.app.state.notes
    return notes


NotesOf = Annotated[Notes, Depends(_notes)]


def routes(base_path: str) -> APIRouter:
    """The pages. base_path: what public paths begin with."""
    router = APIRouter(prefix=base_path)

    @router.get("/")
    async def hello() -> dict[str, str]:
        return {"message": "new-service works"}

    @router.get("/notes")
    async def newest(notes: NotesOf) -> list[str]:
        return await notes.newest()

    @router.post("/notes", status_code=201)
    async def add(notes: NotesOf, text: Annotated[str, Body(embed=True, min_length=1, max_length=1000)]) -> None:
        await notes.add(text)

    return router


def create_app(settings: NewServiceSettings | None = None, notes: Notes | None = None) -> FastAPI:
    """The application.

    Args:
        notes: in place of PostgreSQL, for tests.
    """
    settings = settings or load(NewServiceSettings)
    log.configure(settings.service_name, settings.log_level)
    health = Health(settings.service_name, Lifecycle())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if notes:
            app.state.notes = notes
            yield
            return
        database = Database(settings, settings.live("newservice_db_password"))
        health.add("database", database.ping)
        app.state.notes = PostgresNotes(database)
        yield
        await database.close()

    return frame(settings, health, lifespan, routes(settings.base_path))
