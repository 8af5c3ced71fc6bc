"""Errors as problem documents (RFC 9457) that carry the request id."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from stack import log


class Problem(Exception):
    """An answer other than success. `detail` is one sentence for the caller."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.extra = status, detail, headers or {}, extra


class Document(BaseModel):
    """How every error looks."""

    title: str
    status: int
    detail: str = Field(description="one sentence for people")
    request_id: str = Field(description="to be found in the logs of every service that worked on the request")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors that a route may answer with, for its description in OpenAPI."""
    content = {"application/problem+json": {"schema": Document.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


class Unavailable(Problem):
    """A dependency is unreachable; the client can retry soon."""

    def __init__(self, dependency: str, status: int = 503) -> None:
        super().__init__(
            status, f"{dependency} is temporarily unavailable, try again in a few seconds", {"Retry-After": "2"}
        )
        self.dependency = dependency


def response(status: int, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> JSONResponse:
    """A problem document as an answer."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, "request_id": log.request_id()}
    return JSONResponse({**body, **extra}, status, headers, media_type="application/problem+json")


async def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    if error.status >= 500:
        log.get().warning("unavailable", detail=error.detail, cause=repr(error.__cause__))
    return response(error.status, error.detail, error.headers, **error.extra)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return response(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Never the input itself: it may be a password.
    errors = [_error(each) for each in error.errors()]
    detail = "; ".join(f"{e['field']}: {e['message']}" if e["field"] else e["message"] for e in errors)
    return response(422, detail, errors=errors)


def _error(each: dict[str, Any]) -> dict[str, str]:
    if each["type"] == "json_invalid":
        # Its place is a position, not a field.
        return {"field": "", "message": f"the body is not valid JSON, see character {each['loc'][-1]}"}
    return {"field": ".".join(map(str, each["loc"][1:])), "message": each["msg"]}


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
