"""The secrets of the services, as the Compose files declare them.

The password of what a label owns (`ops.schema`, `ops.database`, `ops.rabbitmq`, `ops.redis`) is generated. Every other
secret is provided by a person, unless its labels say otherwise:

    secrets:
      SHOP_KEY:
        file: ./config/${ENVIRONMENT}/secrets/SHOP_KEY
        labels: {ops.generate: "true", ops.length: 86, ops.keeps: SHOP_KEY_PREVIOUS}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.base.errors import USAGE, OpsError
from ops.secrets import definitions
from ops.secrets.catalogue import (
    BY_NAME,
    KEY_LENGTH,
    PASSWORD_LENGTH,
    REDIS_ROTATION,
    ROLE_ROTATION,
    USER_ROTATION,
    Secret,
)
from ops.stack import owned
from ops.stack.model import Stack

if TYPE_CHECKING:
    from ops.base.environments import Environment

GENERATE, LENGTH, KEEPS = "ops.generate", "ops.length", "ops.keeps"
OPTIONAL, REQUIRED_BY = "ops.optional", "ops.required-by"
PURPOSE, AFTER = "ops.purpose", "ops.after"
_LABELS = (GENERATE, LENGTH, KEEPS, OPTIONAL, REQUIRED_BY, PURPOSE, AFTER)

_GIVEN = "change it where it was given, run the command and type the new value; it replaces the readers"
_GENERATED = "the readers are replaced"
_KEPT = "emptied, and the readers are replaced: what the old value proved is refused"
_KEEPING = "the readers are replaced twice: first all of them know the new value, then they use it"
# For a key that somebody sets by hand.
_KEY_MINIMUM, _KEY_BITS = 32, 128


def of(env: Environment, document: Mapping[str, Any]) -> dict[str, Secret]:
    """The secrets of the services by name, from the resolved configuration. Raises OpsError (USAGE) for labels that
    cannot be meant."""
    files = _files(env, document)
    names = {key: name for name, (key, _) in files.items()}
    readers: dict[str, list[str]] = {}
    for service, entry in (document.get("services") or {}).items():
        for mount in entry.get("secrets") or ():
            if name := names.get(mount["source"]):
                readers.setdefault(name, []).append(service)
    labels = {name: labels for name, (_, labels) in files.items() if name not in BY_NAME}
    kept = {found[KEEPS]: name for name, found in labels.items() if KEEPS in found}
    if unknown := [name for name in kept if name not in labels]:
        raise _wrong(kept[unknown[0]], KEEPS, unknown[0], "no service reads a secret of that name")
    passwords = owned.declared(Stack("", {}, document)).secrets
    return {
        name: _secret(name, found, tuple(readers.get(name, ())), passwords.get(name, ""), kept.get(name, ""))
        for name, found in labels.items()
    }


def every(env: Environment, document: Mapping[str, Any] | None) -> dict[str, Secret]:
    """The stack's own secrets and those of the services. document: None where Compose gives no answer."""
    return {**BY_NAME, **(of(env, document) if document is not None else {})}


def kept(secrets: Iterable[Secret]) -> set[str]:
    """Names of those that only ever hold the old value of another."""
    return {each.keeps for each in secrets if each.keeps}


def _files(env: Environment, document: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, str]]]:
    """Compose's key and the labels of each file of the secrets folder, without what is made from others."""
    return dict(_each_file(env, document))


def _each_file(env: Environment, document: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, dict[str, str]]]]:
    for key, entry in (document.get("secrets") or {}).items():
        path = Path(entry.get("file") or "/")
        if path.parent == env.secrets_dir and path.name != definitions.FILE:
            labels = {name: str(value).strip() for name, value in (entry.get("labels") or {}).items()}
            yield path.name, (key, labels)


def _secret(name: str, labels: Mapping[str, str], readers: tuple[str, ...], password: str, keeper: str) -> Secret:
    if unknown := [label for label in labels if label.startswith("ops.") and label not in _LABELS]:
        raise _wrong(name, unknown[0], labels[unknown[0]], f"there is no such label of a secret: {', '.join(_LABELS)}")
    if password:
        kinds = {"PostgreSQL": ROLE_ROTATION, "RabbitMQ": USER_ROTATION, "Redis": REDIS_ROTATION}
        rotation = kinds[password.partition(" ")[0]]
        return Secret(name, password, readers, rotation)
    purpose = labels.get(PURPOSE, f"for {', '.join(readers)}" if readers else "declared in a Compose file of yours")
    after = labels.get(AFTER, "")
    if keeper:
        purpose = labels.get(PURPOSE, f"the value of {keeper} before its last rotation")
        return Secret(name, purpose, readers, _KEPT, 0, _KEY_MINIMUM, _KEY_BITS, optional=True, after=after)
    if _flag(name, labels, GENERATE):
        if keeps := labels.get(KEEPS, ""):
            length = _length(name, labels, KEY_LENGTH)
            return Secret(name, purpose, readers, _KEEPING, length, _KEY_MINIMUM, _KEY_BITS, keeps=keeps, after=after)
        return Secret(name, purpose, readers, _GENERATED, _length(name, labels, PASSWORD_LENGTH), after=after)
    if misplaced := [label for label in (LENGTH, KEEPS) if label in labels]:
        raise _wrong(name, misplaced[0], labels[misplaced[0]], f'it needs {GENERATE}: "true" beside it')
    required_by = labels.get(REQUIRED_BY, "")
    optional = _flag(name, labels, OPTIONAL) or bool(required_by)
    # Somebody else decides how strong it is.
    return Secret(name, purpose, readers, _GIVEN, 0, 8, 28, optional, required_by, after=after)


def _flag(name: str, labels: Mapping[str, str], label: str) -> bool:
    text = labels.get(label, "false")
    if text not in {"true", "false"}:
        raise _wrong(name, label, text, "it must be true or false")
    return text == "true"


def _length(name: str, labels: Mapping[str, str], usual: int) -> int:
    text = labels.get(LENGTH, str(usual))
    if not (text.isascii() and text.isdigit() and _KEY_MINIMUM < int(text) <= 1000):
        raise _wrong(name, LENGTH, text, "it must be a number of characters, from 33 to 1000")
    return int(text)


def _wrong(name: str, label: str, value: str, why: str) -> OpsError:
    return OpsError(f'The Compose files: the secret {name} has the label {label}: "{value}"; {why}.', "", USAGE)
