"""Templates and the style sheet, both held in memory."""

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from stack import log

_HERE = Path(__file__).parent
STYLE = (_HERE / "static" / "style.css").read_bytes()
STYLE_URL = f"/static/style.{hashlib.sha256(STYLE).hexdigest()[:12]}.css"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


_environment = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_environment.globals["style_url"] = STYLE_URL
_environment.filters["size"] = _size
_environment.filters["moment"] = lambda iso: f"{iso[:10]} {iso[11:16]} UTC"


def page(name: str, status: int = 200, *, email: str | None = None, **values: Any) -> HTMLResponse:
    """A page that nobody may keep.

    Args:
        email: of the person who is logged in.
    """
    html = _environment.get_template(name).render(email=email, **values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def error_page(status: int, detail: str, headers: dict[str, str] | None = None) -> HTMLResponse:
    """A page that says what went wrong, with the request id to ask about."""
    answer = page(
        "error.html", status, phrase=HTTPStatus(status).phrase, code=status, detail=detail, request_id=log.request_id()
    )
    answer.headers.update(headers or {})
    return answer


def style(name: str) -> Response:
    """The style sheet. One of another release is asked for while old and new run side by side: not to be kept."""
    lasting = STYLE_URL.endswith(f"/{name}")
    cache = "public, max-age=31536000, immutable" if lasting else "no-store"
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": cache, "X-Content-Type-Options": "nosniff"})
