"""The pages."""

import re
import uuid
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from stack.problems import Problem
from web.client import Api, visitor
from web.pages import error_page, page
from web.pages import static as static_file
from web.session import Session
from web.uploads import FORM_OVERHEAD, Uploads

MAX_FORM = 64 * 1024
MAX_FIELDS = 20
# The idempotency key in the form for a new item; it is sent on as a header.
_KEY = re.compile(r"[0-9a-f]{32}")
_LENGTH = re.compile(r"[0-9]{1,18}")
DONE = {
    "created": "Your item has been created.",
    "uploaded": "Your file has been uploaded.",
    "deleted": "Your file has been deleted.",
    "left": "You are logged out.",
}

routes = APIRouter(include_in_schema=False)


# Coroutines, although nothing here waits: FastAPI would run plain functions in a thread pool on each request.
async def session_of(request: Request) -> Session:
    """The request's session. Also kept on the request, so that an error page can save what has changed in it."""
    session = Session.of(request)
    request.state.session = session
    return session


async def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    visitor.set(request.headers.get("x-forwarded-for", ""))
    return api


async def _uploads(request: Request) -> Uploads:
    uploads: Uploads = request.app.state.uploads
    return uploads


SessionOf = Annotated[Session, Depends(session_of)]
ApiOf = Annotated[Api, Depends(_api)]
UploadsOf = Annotated[Uploads, Depends(_uploads)]
Done = Annotated[str, Query(max_length=20)]


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        Problem: 400 or 413, more than these forms hold.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            raise Problem(413, "The form is too large.")
    try:
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Problem(400, f"A form can have at most {MAX_FIELDS} fields.") from None


Form = Annotated[dict[str, str], Depends(form_of)]


def local_path(value: str) -> str:
    """Where to go after the login: a page of this site, nothing else."""
    inside = value.startswith("/") and not value.startswith(("//", "/\\")) and value.isprintable()
    return value if inside else "/"


def _go(path: str, session: Session | None = None) -> Response:
    answer = RedirectResponse(path, 303)
    if session:
        session.save(answer)
    return answer


def _saved(answer: Response, session: Session) -> Response:
    session.save(answer)
    return answer


async def _me(api: Api, session: Session) -> uuid.UUID:
    return uuid.UUID((await api.call_as(session, "GET", "/api/v1/auth/me"))["id"])


@routes.get("/static/{name}")
async def static(name: str) -> Response:
    """The style sheet and the icon."""
    return static_file(name) or error_page(404, "This page does not exist.")


@routes.get("/register")
async def register_form(session: SessionOf) -> Response:
    """The form for a new account."""
    return page("register.html", email=session.email, address="", error="")


@routes.post("/register")
async def register(form: Form, session: SessionOf, api: ApiOf) -> Response:
    """Open an account and log in."""
    credentials = {"email": form.get("email", ""), "password": form.get("password", "")}
    try:
        await api.call("POST", "/api/v1/auth/register", json=credentials)
    except Problem as problem:
        if problem.status >= 500:
            raise
        return page(
            "register.html", problem.status, email=session.email, address=credentials["email"], error=problem.detail
        )
    return await _log_in(api, session, credentials, "/")


@routes.get("/login")
async def login_form(session: SessionOf, next: str = "/", done: Done = "") -> Response:  # noqa: A002
    """The form to log in."""
    target, said = local_path(next), DONE.get(done, "")
    return page("login.html", email=session.email, address="", error="", target=target, said=said)


@routes.post("/login")
async def login(form: Form, session: SessionOf, api: ApiOf) -> Response:
    """Log in."""
    credentials = {"email": form.get("email", ""), "password": form.get("password", "")}
    target = local_path(form.get("next", "/"))
    try:
        return await _log_in(api, session, credentials, target)
    except Problem as problem:
        if problem.status >= 500:
            raise
        values: dict[str, Any] = {"address": credentials["email"], "error": problem.detail, "target": target}
        return page("login.html", problem.status, email=session.email, said="", **values)


async def _log_in(api: Api, session: Session, credentials: dict[str, str], target: str) -> Response:
    tokens = await api.call("POST", "/api/v1/auth/login", json=credentials)
    session.renew(tokens["access_token"], tokens["refresh_token"])
    return _go(target, session)


@routes.post("/logout")
async def logout(session: SessionOf, api: ApiOf) -> Response:
    """Log out. If the api is unreachable, the session ends at least in this browser."""
    if session.refresh:
        try:
            await api.call("POST", "/api/v1/auth/logout", json={"refresh_token": session.refresh})
        except Problem as problem:
            if problem.status < 500:
                raise
    session.renew("", "")
    return _go("/login?done=left", session)


@routes.get("/")
async def items(session: SessionOf, api: ApiOf, before: uuid.UUID | None = None, done: Done = "") -> Response:
    """The visitor's items, and the form for a new one."""
    query = urlencode({"limit": 20, **({"before": str(before)} if before else {})})
    found = await api.call_as(session, "GET", f"/api/v1/items?{query}")
    values = {"items": found["items"], "next": found["next"], "first": before is None, "said": DONE.get(done, "")}
    form = {"key": uuid.uuid4().hex, "title": "", "body": "", "error": ""}
    return _saved(page("items.html", email=session.email, form=form, **values), session)


@routes.post("/items")
async def create_item(form: Form, session: SessionOf, api: ApiOf) -> Response:
    """Create an item. The form's key makes a second click the same request."""
    key = form.get("key", "") or uuid.uuid4().hex
    if not _KEY.fullmatch(key):
        raise Problem(422, "This form is no longer valid. Reload the page and try again.")
    item = {"title": form.get("title", ""), "body": form.get("body", "").replace("\r\n", "\n")}
    try:
        await api.call_as(session, "POST", "/api/v1/items", headers={"Idempotency-Key": key}, json=item)
    except Problem as problem:
        if problem.status != 422:
            raise
        shown = {"key": uuid.uuid4().hex, **item, "error": problem.detail}
        values: dict[str, Any] = {"items": [], "next": None, "first": False, "said": ""}
        return _saved(page("items.html", 422, email=session.email, form=shown, **values), session)
    return _go("/?done=created", session)


@routes.get("/uploads")
async def uploads(session: SessionOf, api: ApiOf, kept: UploadsOf, request: Request, done: Done = "") -> Response:
    """The visitor's files, and the form for a new one."""
    files = await kept.list(await _me(api, session))
    limit = request.app.state.settings.upload_max_mb
    values = {"files": files, "limit": limit, "said": DONE.get(done, "")}
    return _saved(page("uploads.html", email=session.email, **values), session)


@routes.post("/uploads")
async def upload(session: SessionOf, api: ApiOf, kept: UploadsOf, request: Request) -> Response:
    """Receive a file, streamed to disk."""
    megabytes = request.app.state.settings.upload_max_mb
    length = request.headers.get("content-length", "")
    declared = int(length) if _LENGTH.fullmatch(length) else None
    if declared is not None and declared > megabytes * 1024 * 1024 + FORM_OVERHEAD:
        raise Problem(413, f"A file can have at most {megabytes} MiB.")
    person = await _me(api, session)
    await kept.receive(person, request.headers.get("content-type", ""), request.stream(), declared)
    return _go("/uploads?done=uploaded", session)


@routes.get("/uploads/{number}")
async def download(number: str, session: SessionOf, api: ApiOf, kept: UploadsOf) -> Response:
    """Download one file. Browsers must not display it: it may contain scripts."""
    path, file = await kept.find(await _me(api, session), number)
    answer = FileResponse(path, media_type="application/octet-stream", filename=file.name)
    answer.headers.update(
        {
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
    )
    return _saved(answer, session)


@routes.post("/uploads/{number}/delete")
async def delete_upload(number: str, session: SessionOf, api: ApiOf, kept: UploadsOf) -> Response:
    """Remove one file."""
    await kept.delete(await _me(api, session), number)
    return _go("/uploads?done=deleted", session)


@routes.get("/status")
async def status(session: SessionOf, api: ApiOf) -> Response:
    """The states of the services, without those of their dependencies: the page is public."""
    return page("status.html", email=session.email, services={"web": "ready"} | await api.states())


def to_login(request: Request) -> Response:
    """Redirect a visitor without a session to the login page."""
    # not request.url, which fails for a malformed Host header
    target = request.scope["path"] if request.method == "GET" else "/"
    if target == "/":
        return _go("/login", Session("", "", changed=True))
    return _go(f"/login?{urlencode({'next': target})}", Session("", "", changed=True))
