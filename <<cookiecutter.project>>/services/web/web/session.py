"""A person's tokens, in cookies that scripts cannot read."""

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

# `__Host-`: the browser takes them only over TLS, for the whole site, and from no other host name.
ACCESS, REFRESH = "__Host-access", "__Host-refresh"
REFRESH_SECONDS = 30 * 24 * 3600
# An access token with less than this left, in seconds, is renewed before it is used.
MARGIN = 30
# Of RFC 6750.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass
class Session:
    """What the cookies say. The api decides whether it is true."""

    access: str = ""
    refresh: str = ""
    changed: bool = False

    @classmethod
    def of(cls, request: Request) -> "Session":
        """The session of a request."""

        def token(name: str, longest: int) -> str:
            # Anything else would make an invalid header or field in a request to the api.
            value = request.cookies.get(name, "")
            return value if len(value) <= longest and _TOKEN.fullmatch(value) else ""

        return cls(token(ACCESS, 4096), token(REFRESH, 256))

    def _claims(self) -> dict[str, Any]:
        try:
            payload = self.access.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (IndexError, ValueError, RecursionError):
            return {}
        return claims if isinstance(claims, dict) else {}

    @property
    def email(self) -> str | None:
        """For display only: nothing here has been verified."""
        value = self._claims().get("email")
        return value if isinstance(value, str) and value.isprintable() else None

    @property
    def stale(self) -> bool:
        """Whether the access token has to be renewed first."""
        expires = self._claims().get("exp")
        return not isinstance(expires, int | float) or expires < time.time() + MARGIN

    def renew(self, access: str, refresh: str) -> None:
        """New tokens, or none."""
        self.access, self.refresh, self.changed = access, refresh, True

    def save(self, response: Response) -> None:
        """Put what has changed into the answer's cookies."""
        if not self.changed:
            return
        for name, value, seconds in ((ACCESS, self.access, 15 * 60), (REFRESH, self.refresh, REFRESH_SECONDS)):
            # The access cookie outlives its token no longer than needed; the refresh cookie is what keeps the session.
            response.set_cookie(
                name, value, max_age=seconds if value else 0, path="/", secure=True, httponly=True, samesite="lax"
            )
