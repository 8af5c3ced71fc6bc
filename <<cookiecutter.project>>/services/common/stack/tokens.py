"""Access tokens: signed by auth, verified by every service that holds the key."""

import hashlib
import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt
from pydantic import SecretStr

ISSUER = "auth-service"
AUDIENCE = "stack"
LIFETIME_SECONDS = 15 * 60


class InvalidToken(Exception):
    """Not signed by us, altered, or expired."""


@dataclass(frozen=True)
class Principal:
    """The authenticated user."""

    id: uuid.UUID
    email: str
    roles: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """Whether the user can see everything."""
        return "admin" in self.roles


def _key_id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


class Keys:
    """The key that signs, and the one before it, which still verifies: so a key can be changed without logging out."""

    def __init__(self, current: SecretStr, previous: SecretStr | None = None) -> None:
        values = [key.get_secret_value() for key in (current, previous) if key and key.get_secret_value()]
        self._current = _key_id(values[0])
        self._keys = {_key_id(value): value for value in values}

    def sign(self, principal: Principal, now: float | None = None) -> str:
        """An access token for `principal`."""
        issued = int(now or time.time())
        claims: dict[str, Any] = {
            "sub": str(principal.id),
            "email": principal.email,
            "roles": sorted(principal.roles),
            "iat": issued,
            "exp": issued + LIFETIME_SECONDS,
            "jti": uuid.uuid4().hex,
            "iss": ISSUER,
            "aud": AUDIENCE,
        }
        return jwt.encode(claims, self._keys[self._current], "HS256", headers={"kid": self._current})

    def verify(self, token: str) -> Principal:
        """The user that the token was issued to.

        Raises:
            InvalidToken
        """
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=5,  # seconds that two hosts' clocks may differ
                options={"require": ["sub", "email", "roles", "iat", "exp", "jti", "iss", "aud"]},
            )
            return Principal(uuid.UUID(claims["sub"]), claims["email"], frozenset(claims["roles"]))
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken(str(error)) from None


def bearer(header: str | None) -> str:
    """The token of an Authorization header, or an empty string."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
