"""Rejects forms that other sites submit on behalf of a visitor, by the origin that the browser reports."""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from web.pages import error_page

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def allowed(method: str, host: str, site: str | None, origin: str | None) -> bool:
    """The rule of Go's CrossOriginProtection.

    Browsers of the last years send Sec-Fetch-Site; older ones send Origin with a POST; a request with neither does not
    come from a browser, and so carries nobody's cookies against their will.

    Args:
        site: the header Sec-Fetch-Site.
    """
    if method in SAFE:
        return True
    if site:
        return site in ("same-origin", "none")
    if not origin:
        return True
    try:
        return origin != "null" and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # not an address
        return False


class CrossOriginProtection:
    """Answers 403 to what is not allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Request(scope).headers
            if not allowed(
                scope["method"], headers.get("host", ""), headers.get("sec-fetch-site"), headers.get("origin")
            ):
                page = error_page(403, "This form was submitted from another site, so it was rejected.")
                await page(scope, receive, send)
                return
        await self.app(scope, receive, send)
