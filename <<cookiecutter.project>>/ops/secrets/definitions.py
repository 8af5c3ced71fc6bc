"""RabbitMQ's definitions: users, queues and permissions, with the hashes of the passwords in the secret files."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets as random_source
from collections.abc import Callable
from pathlib import Path

from ops.base.errors import OpsError
from ops.secrets.files import read_path, replace_file

FILE = "rabbitmq_definitions.json"
SOURCE = "infrastructure/rabbitmq/definitions.json"


def rabbitmq_hash(password: str, salt: bytes) -> str:
    """RabbitMQ's `rabbit_password_hashing_sha256`: base64 of the 4-byte salt and SHA-256 over salt and password."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _salt_of(password_hash: str) -> bytes:
    try:
        return base64.b64decode(password_hash, validate=True)[:4]
    except ValueError:
        return b""


def fits(password_hash: str, password: str) -> bool:
    """Whether a hash is that of a password."""
    salt = _salt_of(password_hash)
    return len(salt) == 4 and password_hash == rabbitmq_hash(password, salt)


def definitions(source: str, value_of: Callable[[str], str], previous: str = "") -> str:
    """RabbitMQ's definitions with every `password_secret` of `source` replaced by the hash of that secret's value.

    A hash of `previous` that still fits is kept, so that unchanged passwords give unchanged text.
    Raises ValueError for JSON that is broken, KeyError for a user without name or for a secret that has no value.
    """
    document = json.loads(source)
    hashes = _hashes(previous)
    for user in document.get("users", []):
        if "password_secret" not in user:
            continue
        name = user.pop("password_secret")
        password = value_of(name)
        if not password:
            raise KeyError(name)
        kept = hashes.get(user["name"], "")
        fresh = rabbitmq_hash(password, random_source.token_bytes(4))
        user["password_hash"] = kept if fits(kept, password) else fresh
        user["hashing_algorithm"] = "rabbit_password_hashing_sha256"
    return json.dumps(document, indent=2) + "\n"


def _hashes(text: str) -> dict[str, str]:
    try:
        return {user["name"]: user["password_hash"] for user in json.loads(text)["users"]}
    except (ValueError, KeyError, TypeError):
        return {}


def users(source: str) -> dict[str, str]:
    """Names of RabbitMQ's users by the secret that holds their password. Raises ValueError for JSON that is broken."""
    found = json.loads(source).get("users", [])
    return {user["password_secret"]: user["name"] for user in found if "password_secret" in user}


def text(folder: Path, source: Path) -> str:
    """What the file of `folder` should hold now. Raises OpsError when it cannot be made."""
    target = folder / FILE
    previous = target.read_text(encoding="utf-8", errors="replace") if target.is_file() else ""
    try:
        return definitions(source.read_text(encoding="utf-8"), lambda name: read_path(folder / name), previous)
    except FileNotFoundError as error:
        raise OpsError(f"{source} is missing.", f"git checkout -- {SOURCE}") from error
    except ValueError as error:
        raise OpsError(f"{source} is not valid JSON: {error}.", f"git diff -- {SOURCE}") from error
    except KeyError as error:
        raise OpsError(
            f"{source}: {error.args[0]} has no value.", f"{folder / str(error.args[0])} must not be empty."
        ) from error


def render(folder: Path, source: Path, write: Callable[[Path, bytes], None] = replace_file) -> bool:
    """Write the file of `folder` unless it is as it should be; return whether it was written. Raises OpsError."""
    target = folder / FILE
    wanted = text(folder, source).encode()
    if target.is_file() and target.read_bytes() == wanted:
        return False
    write(target, wanted)
    return True
