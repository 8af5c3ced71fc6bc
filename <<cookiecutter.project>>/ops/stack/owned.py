"""What the team's services own in the data tier, as their labels declare it: roles, schemas and databases of
PostgreSQL, users of RabbitMQ and Redis, volumes to back up.

Nothing here asks the engine; docs/architecture.md has the table of labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ops.base.errors import USAGE, OpsError
from ops.stack import labels
from ops.stack.model import Stack

SCHEMA, DATABASE = "ops.schema", "ops.database"
RABBITMQ, DEFINITIONS = "ops.rabbitmq", "ops.rabbitmq.definitions"
REDIS = "ops.redis"
BACKUP = "ops.backup"
LABELS = (SCHEMA, DATABASE, RABBITMQ, DEFINITIONS, REDIS, BACKUP)

# A restore adds up to 30 characters to the name of a database, and PostgreSQL cuts names at 63.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,29}")
# What PostgreSQL and this stack use themselves.
_RESERVED_ROLES = frozenset(
    {
        "public",
        "postgres",
        "replicator",
        "backup",
        "metrics",
        "services",
        "information_schema",
        "template0",
        "template1",
    }
)
_RESERVED_USERS = frozenset({"guest", "admin"})
_RESERVED_REDIS_USERS = frozenset({"default", "operator", "sentinel"})
# It becomes the name of a member of the archive, whose header has room for 100 characters.
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True)
class Role:
    """A role of PostgreSQL with what it owns. database: the one of its own ("": a schema in the common one); copies: it
    is the part `backup`, which owns nothing and copies everything."""

    name: str
    secret: str
    database: str = ""
    services: tuple[str, ...] = ()
    copies: bool = False

    @property
    def label(self) -> str:
        """The label that it comes from."""
        return DATABASE if self.database else SCHEMA

    @property
    def schema(self) -> str:
        """The schema in the common database; "" for a role with a database of its own."""
        return "" if self.database or self.copies else self.name


@dataclass(frozen=True)
class User:
    """A user of RabbitMQ. definitions: files with what it owns, relative to the project's folder."""

    name: str
    secret: str
    definitions: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    label: ClassVar[str] = RABBITMQ


@dataclass(frozen=True)
class RedisUser:
    """A user of Redis. Keys and channels whose names begin with its name and a colon are its own."""

    name: str
    secret: str
    services: tuple[str, ...] = ()
    label: ClassVar[str] = REDIS


@dataclass(frozen=True)
class Volume:
    """A volume that a backup holds. name: as the Compose files call it; real: as the engine does; service: whose label
    names it. Others may mount it as well."""

    name: str
    real: str
    service: str = ""


@dataclass(frozen=True)
class Owned:
    """Everything that the services own, and the volumes of theirs that no backup holds. managed: PostgreSQL is outside
    of the stack, and somebody else makes what is in it."""

    roles: tuple[Role, ...] = ()
    users: tuple[User, ...] = ()
    redis_users: tuple[RedisUser, ...] = ()
    volumes: tuple[Volume, ...] = ()
    not_backed_up: tuple[str, ...] = ()
    managed: bool = False

    @property
    def databases(self) -> tuple[str, ...]:
        """Databases that services have for themselves."""
        return tuple(each.database for each in self.roles if each.database)

    @staticmethod
    def claimants(of: Sequence[Role | User | RedisUser]) -> list[str]:
        """The services that own some roles or users."""
        return sorted({service for each in of for service in each.services})

    @property
    def secrets(self) -> dict[str, str]:
        """What each secret is the password of, in words, by its name."""
        return {
            **{each.secret: f"PostgreSQL role {each.name}" for each in self.roles},
            **{each.secret: f"RabbitMQ user {each.name}" for each in self.users},
            **{each.secret: f"Redis user {each.name}" for each in self.redis_users},
        }


def secret_of(name: str, kind: str) -> str:
    """The secret that holds a password. kind: DB, RABBITMQ or REDIS."""
    return f"{name.upper().replace('-', '_')}_{kind}_PASSWORD"


def declared(stack: Stack, superuser: str = "", database: str = "") -> Owned:
    """What the labels of every service say. superuser, database: names that PostgreSQL has already (POSTGRES_USER,
    POSTGRES_DB). Raises OpsError (USAGE) for labels that cannot be meant, and for two that claim the same."""
    entries: Mapping[str, Any] = stack.document.get("services") or {}
    own = {name: entry for name, entry in entries.items() if is_own(entry)}
    for name, entry in entries.items():
        if name not in own and (found := [label for label in LABELS if label in _labels(entry)]):
            raise _wrong(name, found[0], _labels(entry)[found[0]], "it is for services of your own, not for a part")
    for name, entry in own.items():
        if (said := _labels(entry).get(labels.RESTORE, labels.RUNNING)) != labels.RUNNING:
            raise _wrong(name, labels.RESTORE, said, "it must be running, or not be there: then the service is stopped")
    volumes = _volumes(stack, own)
    return Owned(
        roles=tuple(_roles(own, {superuser, database} - {""})),
        users=tuple(_users(own)),
        redis_users=tuple(_redis_users(own)),
        volumes=volumes,
        not_backed_up=tuple(sorted(_mounted_by(own).keys() - {each.name for each in volumes})),
    )


def is_own(entry: Mapping[str, Any]) -> bool:
    """Whether a service is the team's, and no part of the stack."""
    return not labels.PARTS & _labels(entry).keys()


def _labels(entry: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value).strip() for key, value in (entry.get("labels") or {}).items()}


def _secrets(entry: Mapping[str, Any]) -> set[str]:
    return {each["source"] for each in entry.get("secrets") or ()}


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _roles(own: Mapping[str, Mapping[str, Any]], taken: set[str]) -> Iterator[Role]:
    claims: dict[str, list[tuple[str, str]]] = {}
    for service, entry in own.items():
        for label in (SCHEMA, DATABASE):
            if label in (said := _labels(entry)):
                name = _name(service, label, said[label], _RESERVED_ROLES | taken)
                if name.startswith("pg_"):
                    raise _wrong(service, label, name, "names that begin with pg_ are PostgreSQL's own")
                _demand_secret(service, entry, label, name, secret_of(name, "DB"))
                claims.setdefault(name, []).append((label, service))
    _refuse_twins(claims, "DB", SCHEMA)
    for name, claimants in sorted(claims.items()):
        kinds = {label for label, _ in claimants}
        services = tuple(dict.fromkeys(service for _, service in claimants))
        if len(kinds) > 1:
            first = next(service for label, service in claimants if label == SCHEMA)
            raise _wrong(
                next(service for label, service in claimants if label == DATABASE),
                DATABASE,
                name,
                f"{first} has a schema of that name, and both would be the role {name}, so give one another name",
            )
        yield Role(name, secret_of(name, "DB"), name if DATABASE in kinds else "", services)


# ── RabbitMQ ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _users(own: Mapping[str, Mapping[str, Any]]) -> Iterator[User]:
    claims: dict[str, list[tuple[str, str]]] = {}
    for service, entry in own.items():
        said = _labels(entry)
        if RABBITMQ in said:
            name = _name(service, RABBITMQ, said[RABBITMQ], _RESERVED_USERS)
            _demand_secret(service, entry, RABBITMQ, name, secret_of(name, "RABBITMQ"))
            claims.setdefault(name, []).append((said.get(DEFINITIONS, ""), service))
        elif DEFINITIONS in said:
            raise _wrong(service, DEFINITIONS, said[DEFINITIONS], f"it needs the label {RABBITMQ} beside it")
    _refuse_twins(claims, "RABBITMQ", RABBITMQ)
    for name, claimants in sorted(claims.items()):
        files = tuple(dict.fromkeys(file for file, _ in claimants if file))
        for file, service in claimants:
            if file and (Path(file).is_absolute() or ".." in Path(file).parts):
                raise _wrong(service, DEFINITIONS, file, "it must be a path within the project, services/shop/…")
        yield User(name, secret_of(name, "RABBITMQ"), files, tuple(service for _, service in claimants))


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _redis_users(own: Mapping[str, Mapping[str, Any]]) -> Iterator[RedisUser]:
    claims: dict[str, list[tuple[str, str]]] = {}
    for service, entry in own.items():
        if REDIS in (said := _labels(entry)):
            name = _name(service, REDIS, said[REDIS], _RESERVED_REDIS_USERS)
            _demand_secret(service, entry, REDIS, name, secret_of(name, "REDIS"))
            claims.setdefault(name, []).append((REDIS, service))
    _refuse_twins(claims, "REDIS", REDIS)
    for name, claimants in sorted(claims.items()):
        yield RedisUser(name, secret_of(name, "REDIS"), tuple(service for _, service in claimants))


# ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _name(service: str, label: str, text: str, reserved: frozenset[str] | set[str]) -> str:
    if not _NAME.fullmatch(text):
        raise _wrong(service, label, text, "it must be up to 30 characters of a-z, 0-9, _ and -, a letter first")
    if text in reserved:
        raise _wrong(service, label, text, "the stack itself uses that name, so choose another")
    return text


def _demand_secret(service: str, entry: Mapping[str, Any], label: str, name: str, secret: str) -> None:
    if secret not in _secrets(entry):
        raise OpsError(
            f"The Compose files: {service} has the label {label}: {name}, but cannot read its password, the secret"
            f" {secret}.",
            f"Add {secret} to secrets: of {service}, and at the top level of the file:"
            f' secrets: {{{secret}: {{file: "./config/${{ENVIRONMENT}}/secrets/{secret}"}}}}',
            USAGE,
        )


def _refuse_twins(claims: Mapping[str, list[tuple[str, str]]], kind: str, label: str) -> None:
    """my-shop and my_shop would have one password."""
    seen: dict[str, str] = {}
    for name, claimants in claims.items():
        if (other := seen.setdefault(secret_of(name, kind), name)) != name:
            service = claimants[0][1]
            raise _wrong(service, label, name, f"{claims[other][0][1]} has {other}, whose secret has the same name")


# ── volumes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _mounted(entry: Mapping[str, Any]) -> list[str]:
    """Named volumes of a service."""
    return [each["source"] for each in entry.get("volumes") or () if each["type"] == "volume" and "source" in each]


def _mounted_by(services: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, entry in services.items():
        for volume in _mounted(entry):
            found.setdefault(volume, []).append(name)
    return found


def _volumes(stack: Stack, own: Mapping[str, Mapping[str, Any]]) -> tuple[Volume, ...]:
    entries: Mapping[str, Any] = stack.document.get("services") or {}
    # The part that takes backups mounts them to read them.
    others = {name: each for name, each in entries.items() if name not in own and not labels.is_backup(_labels(each))}
    parts = _mounted_by(others)
    claims: dict[str, str] = {}
    for service, said in own.items():
        text = _labels(said).get(BACKUP)
        if text is None:
            continue
        names = [each.strip() for each in text.split(",")]
        for name in names:
            if name not in (mounted := _mounted(said)):
                there = f"it mounts {', '.join(mounted)}" if mounted else "it mounts none"
                raise _wrong(service, BACKUP, text, f"{service} mounts no volume {name or '(empty)'}: {there}")
            if not _VOLUME.fullmatch(name):
                raise _wrong(service, BACKUP, text, f"{name} is too long: at most 80 characters")
            if name in parts:
                raise _wrong(service, BACKUP, text, f"{name} belongs to {parts[name][0]}, which is a part of the stack")
            if other := claims.get(name):
                why = f"{other} names {name} too: keep the name in one of the two, which both may mount the volume"
                raise _wrong(service, BACKUP, text, why)
            claims[name] = service
    real: Mapping[str, Any] = stack.document.get("volumes") or {}
    volumes = [Volume(name, real.get(name, {}).get("name", name), service) for name, service in sorted(claims.items())]
    _refuse_one_under_two_names(volumes)
    return tuple(volumes)


def _refuse_one_under_two_names(volumes: Sequence[Volume]) -> None:
    """A restore would fill it twice."""
    seen: dict[str, Volume] = {}
    for each in volumes:
        if (other := seen.setdefault(each.real, each)) != each:
            raise _wrong(
                each.service, BACKUP, each.name, f"{other.name} of {other.service} is the same volume, {each.real}"
            )


def _wrong(service: str, label: str, value: str, why: str) -> OpsError:
    return OpsError(f'The Compose files: {service} has the label {label}: "{value}"; {why}.', "", USAGE)
