"""What an account is, and the rules for its parts."""

import ipaddress
import re
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from zxcvbn import zxcvbn  # type: ignore[import-untyped]

from auth.passwords import MAX_LENGTH, MIN_LENGTH

ROLES = ("user", "admin")
_LOCAL = re.compile(r"[^\s@<>(),;:\\\"\[\]\x00-\x1f\x7f]{1,64}")
# zxcvbn's score, from 0 to 4: a password of 3 takes 100 million guesses by somebody who knows what people choose.
MIN_SCORE = 3
# zxcvbn takes seconds for longer ones; the rest can only make a password stronger.
_SCORED_LENGTH = 72
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class User:
    """One account."""

    id: uuid.UUID
    email: str
    password_hash: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class RefreshToken:
    """One refresh token. All that come from the same login form a family."""

    id: uuid.UUID
    family: uuid.UUID
    user_id: uuid.UUID
    digest: bytes
    expires_at: datetime
    replaced_by: uuid.UUID | None = None
    revoked: bool = False


@dataclass(frozen=True)
class LoginLimit:
    """How many logins may be tried at one account.

    A client has `attempts`, then it must wait: 15 s before the next one, 30 s before the one after it, up to `window`.
    Its count is reset by a login, or after `window` without an attempt. While an account is under attack from many
    clients, each has a single attempt before it must wait, so the owner can still log in.
    """

    attempts: int
    window: timedelta
    first_wait: timedelta = timedelta(seconds=15)

    @property
    def account_failures(self) -> int:
        """Failures of all clients at one account within `window` above which the account counts as under attack."""
        return 10 * self.attempts


def client_of(forwarded_for: str) -> str:
    """The client by the header X-Forwarded-For: an IPv4 address, or the /64 network of an IPv6 address, because all
    addresses of the network belong to one customer. Empty when unknown."""
    try:
        address = ipaddress.ip_address(forwarded_for.partition(",")[0].strip())
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, 64), strict=False))


def normalise_email(value: str) -> str:
    """The one spelling of an address under which an account is kept.

    Raises:
        ValueError: not an address.
    """
    local, at, domain = unicodedata.normalize("NFC", value.strip()).rpartition("@")
    try:
        domain = domain.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        domain = ""
    labels = domain.split(".")
    if not at or not _LOCAL.fullmatch(local) or len(domain) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("not an e-mail address")
    if len(labels) < 2 or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError("not an e-mail address")
    # `=?` begins an encoded word, which mail programs decode into another address.
    if "=?" in local or not local.isprintable():
        raise ValueError("not an e-mail address")
    return f"{local.lower()}@{domain}"


def check_password(password: str, email: str) -> str:
    """The password, if it is good enough. Takes up to a tenth of a second.

    Raises:
        ValueError: too short, too long, or easy to guess.
    """
    if len(password) < MIN_LENGTH:
        raise ValueError(f"must have at least {MIN_LENGTH} characters")
    if len(password) > MAX_LENGTH:
        raise ValueError(f"can have at most {MAX_LENGTH} characters")
    estimate = zxcvbn(password[:_SCORED_LENGTH], user_inputs=[email, *re.split(r"\W+", email)])
    if estimate["score"] < MIN_SCORE:
        raise ValueError(f"is too easy to guess. {estimate['feedback']['warning']}".strip())
    return password
