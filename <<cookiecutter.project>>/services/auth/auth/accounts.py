"""What an account is, and the rules for its parts."""

import re
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import datetime

from auth.passwords import MAX_LENGTH, MIN_LENGTH

ROLES = ("user", "admin")
_LOCAL = re.compile(r"[^\s@<>(),;:\\\"\[\]\x00-\x1f\x7f]{1,64}")
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
    return f"{local.lower()}@{domain}"


def check_password(password: str, email: str) -> str:
    """The password, if it will do.

    Raises:
        ValueError: too short, too long, or nothing but the address.
    """
    if len(password) < MIN_LENGTH:
        raise ValueError(f"needs at least {MIN_LENGTH} characters")
    if len(password) > MAX_LENGTH:
        raise ValueError(f"may have at most {MAX_LENGTH} characters")
    if len(set(password)) < 4 or password.lower() in (email, email.partition("@")[0]):
        raise ValueError("is too easy to guess")
    return password
