"""Templates and static files, all held in memory."""

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from stack import log

_HERE = Path(__file__).parent
_MEDIA_TYPES = {".css": "text/css", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A static file. Its address names its content, so that a browser can cache it for ever."""

    content: bytes
    media_type: str
    url: str


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(content, _MEDIA_TYPES[path.suffix], f"/static/{path.stem}.{digest}{path.suffix}")


ASSETS = {path.name: _asset(path) for path in (_HERE / "static").iterdir()}


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
_environment.globals["site_name"] = "Stack"
_environment.globals["asset"] = lambda name: ASSETS[name].url
_environment.filters["size"] = _size
_environment.filters["moment"] = lambda iso: f"{iso[:10]} {iso[11:16]} UTC"


def call_site(name: str) -> None:
    """Set the name that all pages show."""
    _environment.globals["site_name"] = name


def page(name: str, status: int = 200, *, email: str | None = None, **values: Any) -> HTMLResponse:
    """A page that must not be cached.

    Args:
        email: of the person who is logged in.
    """
    html = _environment.get_template(name).render(email=email, **values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def error_page(status: int, detail: str, headers: dict[str, str] | None = None) -> HTMLResponse:
    """An error page with the request id."""
    answer = page(
        "error.html", status, phrase=HTTPStatus(status).phrase, code=status, detail=detail, request_id=log.request_id()
    )
    answer.headers.update(headers or {})
    return answer


def static(name: str) -> Response | None:
    """A static file by the last part of its address, None when there is no such file.

    The address of another release is asked for while old and new run side by side: answered, but not to be kept.
    """
    asset = ASSETS.get(name.partition(".")[0] + Path(name).suffix)
    if asset is None:
        return None
    cache = "public, max-age=31536000, immutable" if asset.url.endswith(f"/{name}") else "no-store"
    headers = {"Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    return Response(asset.content, media_type=asset.media_type, headers=headers)
