"""The frame of every service's application."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from stack import problems
from stack.edge import Edge
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.settings import Settings

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def _failure() -> Response:
    return problems.response(500, "something went wrong on our side")


def frame(
    settings: Settings,
    health: Health,
    lifespan: Lifespan,
    *routers: APIRouter,
    failure: Callable[[], Response] = _failure,
    **options: Any,
) -> FastAPI:
    """An application with health, metrics, problem documents and the edge around the given routes.

    Args:
        failure: the answer to a request that made the application fail.
        options: for FastAPI.
    """
    app = FastAPI(
        title=settings.service_name,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url=options.pop("openapi_url", None),
        redirect_slashes=False,
        **options,
    )
    app.state.settings, app.state.lifecycle = settings, health.lifecycle
    problems.install(app)
    app.add_middleware(Edge, service=settings.service_name, lifecycle=health.lifecycle, failure=failure)
    app.include_router(health.routes())
    for router in routers:
        app.include_router(router)
    return app


def lifecycle_of(app: FastAPI) -> Lifecycle:
    """The state that the server and the application share."""
    lifecycle: Lifecycle = app.state.lifecycle
    return lifecycle
