"""The client of the api."""

import asyncio
import hashlib
import re
import time
from contextvars import ContextVar
from typing import Any

import httpx

from stack import log
from stack.problems import Problem, Unavailable
from web.session import Session

STATUS_SECONDS = 3
# How long, in seconds, the outcome of a refresh answers other requests that came with the same, now used up, token.
SHARED_SECONDS = 10


# The address of the visitor: the auth service counts failed logins by it.
visitor: ContextVar[str] = ContextVar("visitor", default="")
_ADDRESSES = re.compile(r"[0-9A-Fa-f.:, ]{1,200}")


class LoggedOut(Exception):
    """The session is over: log in again."""


class Api:
    """Calls to the api in the name of a session."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._refreshes: dict[bytes, tuple[float, asyncio.Task[tuple[str, str]]]] = {}

    async def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, json: Any = None) -> Any:
        """Call without a session.

        Raises:
            Problem: what the api answered, or that it did not.
        """
        headers = {**(headers or {}), "X-Request-ID": log.request_id()}
        if _ADDRESSES.fullmatch(visitor.get()):
            headers["X-Forwarded-For"] = visitor.get()
        try:
            answer = await self._http.request(method, path, headers=headers, json=json)
        except httpx.TimeoutException as error:
            raise Unavailable("the api", 504) from error
        except httpx.HTTPError as error:
            raise Unavailable("the api") from error
        if answer.is_success:
            return answer.json() if answer.content else None
        try:
            detail = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = "unexpected response from the API"
        # To the visitor it makes no difference which proxy answers 502 or 504 for an unreachable api.
        status = 503 if answer.status_code in (502, 503, 504) else answer.status_code
        retry = {"Retry-After": answer.headers["retry-after"]} if "retry-after" in answer.headers else {}
        raise Problem(status, detail, retry)

    async def states(self) -> dict[str, str]:
        """The states of the api and the auth service, from the api's readiness. Never raises."""
        try:
            report = (await self._http.get("/health/ready", timeout=STATUS_SECONDS)).json()
            own, auth = str(report["status"]), report["checks"]["auth"]["status"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return {"api": "unreachable", "auth": "unknown"}
        return {"api": own, "auth": "ready" if auth == "ok" else "unavailable"}

    async def call_as(self, session: Session, method: str, path: str, **options: Any) -> Any:
        """Call in the name of a session, renewing its tokens when needed.

        Raises:
            LoggedOut: there is no session any more.
            Problem: as `call`.
        """
        if session.stale:
            await self._renew(session)
        try:
            return await self._call_as(session, method, path, **options)
        except Problem as problem:
            if problem.status != 401:
                raise
        await self._renew(session)  # for instance after the signing key was changed twice
        try:
            return await self._call_as(session, method, path, **options)
        except Problem as problem:
            if problem.status == 401:
                raise LoggedOut from None
            raise

    async def _call_as(self, session: Session, method: str, path: str, **options: Any) -> Any:
        headers = {**options.pop("headers", {}), "Authorization": f"Bearer {session.access}"}
        return await self.call(method, path, headers=headers, **options)

    async def _renew(self, session: Session) -> None:
        if not session.refresh:
            raise LoggedOut
        # A refresh token works once, and a second use ends the session: requests that come together share one refresh.
        now = time.monotonic()
        self._refreshes = {key: kept for key, kept in self._refreshes.items() if kept[0] > now or not kept[1].done()}
        key = hashlib.sha256(session.refresh.encode()).digest()
        if key not in self._refreshes:
            self._refreshes[key] = (now + SHARED_SECONDS, asyncio.create_task(self._refresh(session.refresh)))
        try:
            session.renew(*await asyncio.shield(self._refreshes[key][1]))
        except Problem as problem:
            if problem.status == 401:
                session.renew("", "")
                raise LoggedOut from None
            self._refreshes.pop(key, None)
            raise

    async def _refresh(self, token: str) -> tuple[str, str]:
        tokens = await self.call("POST", "/api/v1/auth/refresh", json={"refresh_token": token})
        return tokens["access_token"], tokens["refresh_token"]
