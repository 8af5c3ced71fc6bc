"""The web service: pages for people."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from stack import background, log
from stack.app import frame
from stack.health import Health
from stack.lifecycle import Lifecycle
from stack.problems import Problem
from stack.settings import load
from web.client import Api, LoggedOut
from web.csrf import CrossOriginProtection
from web.pages import call_site, error_page
from web.routes import routes, to_login
from web.settings import WebSettings
from web.uploads import Uploads

MEGABYTE = 1024 * 1024
CLEAN_SECONDS = 3600

_WORDS = {
    404: "This page does not exist.",
    405: "This page does not accept this kind of request.",
    503: "The service is temporarily unavailable. Try again in a few seconds. You are still logged in.",
    504: "The service took too long to respond. Try again in a few seconds. You are still logged in.",
}


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if error.status >= 500:
        log.get().warning("unavailable", detail=error.detail, cause=repr(error.__cause__))
    detail = _WORDS.get(error.status, error.detail) if error.status >= 500 else error.detail
    answer = error_page(error.status, detail, error.headers)
    if session := getattr(request.state, "session", None):
        session.save(answer)  # tokens that were renewed before the error are the only valid ones
    return answer


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_page(error.status_code, _WORDS.get(error.status_code, str(error.detail)), dict(error.headers or {}))


async def _invalid(_: Request, __: Exception) -> Response:
    return error_page(422, "A value in the address or in the form is not valid.")


async def _logged_out(request: Request, _: Exception) -> Response:
    return to_login(request)


async def _clean_regularly(uploads: Uploads) -> None:
    while True:
        try:
            await asyncio.to_thread(uploads.clean)
        except OSError as error:
            log.get().warning("cleaning failed", error=repr(error))
        await asyncio.sleep(CLEAN_SECONDS)


def create_app(settings: WebSettings | None = None, http: httpx.AsyncClient | None = None) -> FastAPI:
    """The application.

    Args:
        http: in place of the network, for tests.
    """
    settings = settings or load(WebSettings)
    log.configure(settings.service_name, settings.log_level)
    call_site(settings.site_name)
    health = Health(settings.service_name, Lifecycle())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = http or httpx.AsyncClient(
            base_url=settings.api_url,
            timeout=httpx.Timeout(settings.api_timeout, connect=2, pool=2),
            # Idle connections are given up well before nginx does it, after 10 s (keepalive_timeout).
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3),
            trust_env=False,
        )
        app.state.api = Api(client)
        app.state.uploads = uploads = Uploads(
            settings.upload_dir,
            limit=settings.upload_max_mb * MEGABYTE,
            quota=settings.upload_quota_mb * MEGABYTE,
            most=settings.upload_max_files,
        )

        async def ping_api() -> None:
            (await client.get("/health/ready", timeout=2)).raise_for_status()

        async def check_uploads() -> None:
            uploads.check()

        health.add("uploads", check_uploads)
        # Without the api there are still error pages, so web stays ready.
        health.add("api", ping_api, required=False)
        cleaning = background.start("cleaning", lambda: _clean_regularly(uploads))
        yield
        cleaning.cancel()
        await client.aclose()

    app = frame(
        settings,
        health,
        lifespan,
        routes,
        failure=lambda: error_page(500, "Something went wrong on our side. The error has been logged."),
        middleware=[Middleware(CrossOriginProtection)],
    )
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(LoggedOut, _logged_out)
    return app
