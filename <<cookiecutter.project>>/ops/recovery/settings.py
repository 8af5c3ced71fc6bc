"""What docker-compose.backup.yml tells the containers of this part, read once and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ops.base import libpq
from ops.base.errors import USAGE, OpsError

Kind = Literal["backups", "wal"]

# The names of its nodes, where there are any; which of them is the primary, a failover changes.
REDIS_NODES = ("redis-primary", "redis-replica")
_REDIS_FILE = "docker-compose.redis.yml"
_MANAGED_FILE = "docker-compose.postgres-managed.yml"


@dataclass(frozen=True)
class Target:
    """A place that keeps backups: a folder, `s3:https://HOST/BUCKET/PATH` or `sftp:USER@HOST:/PATH`."""

    location: str

    @property
    def scheme(self) -> str:
        """`s3` or `sftp`; "" for a folder."""
        scheme, colon, _ = self.location.partition(":")
        return scheme if colon else ""

    def repository(self, kind: Kind) -> str:
        """Where a repository of it is, as restic writes it. WAL and entries have one each: cleaning one up locks it."""
        return f"{self.location}/{kind}"


@dataclass(frozen=True)
class Keep:
    """How many days, weeks and months have an entry that is kept."""

    daily: int
    weekly: int
    monthly: int


@dataclass(frozen=True)
class Paths:
    """Where things are in a container of this part."""

    wal: Path = Path("/wal")
    cache: Path = Path("/cache")
    scratch: Path = Path("/scratch")
    volumes: Path = Path("/volumes")
    secrets: Path = Path("/run/secrets")
    # known_hosts, and ca.pem where a target's certificate comes from an authority of the company
    configuration: Path = Path("/etc/backup")
    # in memory: what only programs of this container may read
    memory: Path = Path("/tmp")


@dataclass(frozen=True)
class Settings:
    """The settings of the part. Of a server that the stack does not have, hosts are empty.

    hosts are HOST:PORT, those of Redis HOST. wal_seconds: between two deliveries of WAL; full_days: after so many days
    a full backup; upload_kib: KiB a second that one upload takes at most, 0 for no limit; wal_limit_mib: MiB of WAL on
    this machine beyond which the oldest goes as long as there is no entry, and an alert tells when there is one;
    managed_hosts: of a PostgreSQL outside of the stack, whose connections `tls` protects, in words of libpq;
    rabbitmq_closed: why RabbitMQ cannot be asked, "" where it can.
    """

    environment: str
    project: str
    targets: tuple[Target, ...]
    wal_seconds: int
    full_days: int
    keep: Keep
    with_secrets: bool = False
    s3_region: str = ""
    upload_kib: int = 0
    wal_limit_mib: int = 1024
    database_hosts: tuple[str, ...] = ()
    managed_hosts: tuple[str, ...] = ()
    tls: Mapping[str, str] = field(default_factory=dict)
    database: str = "postgres"
    redis_hosts: tuple[str, ...] = ()
    redis_sentinels: tuple[str, ...] = ()
    rabbitmq_hosts: tuple[str, ...] = ()
    rabbitmq_user: str = ""
    rabbitmq_closed: str = ""
    paths: Paths = field(default_factory=Paths)

    @property
    def managed_name(self) -> str:
        """The PostgreSQL outside of the stack, as messages name it."""
        return ", ".join(self.managed_hosts)

    def secret(self, name: str) -> str:
        """The value of a secret; "" when its file is missing or empty."""
        try:
            return (self.paths.secrets / name).read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError:
            return ""


_SFTP = re.compile(r"sftp:[^\s@:/]+@[^\s:/]+:/\S*[^\s/]")
_S3 = re.compile(r"s3:https?://[^\s/]+(/[^\s/]+)+")
_FOLDER = re.compile(r"/\S*[^\s/]")
_FORMS = "a folder (/backups), s3:https://HOST/BUCKET/PATH or sftp:USER@HOST:/PATH"


def read(environ: Mapping[str, str], paths: Paths | None = None) -> Settings:
    """The settings in the environment of a container. Raises OpsError (USAGE) that names the one that is wrong."""
    text = environ.get("BACKUP_TARGETS", "")
    targets = tuple(dict.fromkeys(_target(each) for each in text.split()))
    if not targets:
        raise _wrong("BACKUP_TARGETS", text, f"it must name at least one target: {_FORMS}")
    files = environ.get("COMPOSE_FILE", "").split(":")
    database_hosts = libpq.addresses(environ.get("DATABASE_HOSTS", ""), "5432")
    managed = _MANAGED_FILE in files
    settings = Settings(
        environment=_needed(environ, "ENVIRONMENT"),
        project=_needed(environ, "PROJECT"),
        targets=targets,
        wal_seconds=_number(environ, "BACKUP_WAL_SECONDS", 5),
        wal_limit_mib=_number(environ, "BACKUP_WAL_LIMIT_MIB", 64),
        full_days=_number(environ, "BACKUP_FULL_DAYS", 1),
        keep=Keep(
            _number(environ, "BACKUP_KEEP_DAILY", 1),
            _number(environ, "BACKUP_KEEP_WEEKLY", 0),
            _number(environ, "BACKUP_KEEP_MONTHLY", 0),
        ),
        with_secrets=_flag(environ, "BACKUP_SECRETS"),
        s3_region=environ.get("BACKUP_S3_REGION", ""),
        upload_kib=_number(environ, "BACKUP_UPLOAD_KIB", 0),
        database_hosts=() if managed else database_hosts,
        managed_hosts=database_hosts if managed else (),
        tls=_tls(environ) if managed else {},
        database=environ.get("DATABASE_NAME") or "postgres",
        redis_hosts=REDIS_NODES if _REDIS_FILE in files else (),
        redis_sentinels=libpq.addresses(environ.get("REDIS_SENTINELS", ""), "26379"),
        rabbitmq_hosts=libpq.addresses(environ.get("RABBITMQ_HOSTS", ""), "15672"),
        rabbitmq_user=environ.get("RABBITMQ_USER", ""),
        rabbitmq_closed=environ.get("BACKUP_WITHOUT_RABBITMQ", ""),
        paths=paths or Paths(),
    )
    for scheme, names in {"s3": ("BACKUP_S3_KEY_ID", "BACKUP_S3_SECRET"), "sftp": ("BACKUP_SSH_KEY",)}.items():
        target = next((each for each in targets if each.scheme == scheme), None)
        if target and (empty := [name for name in names if not settings.secret(name)]):
            raise OpsError(
                f"The secret {empty[0]} is empty, and BACKUP_TARGETS names {target.location}.",
                f"Write it to config/{settings.environment}/secrets/{empty[0]}, then deploy.",
                USAGE,
            )
    if not settings.secret("BACKUP_KEY"):
        raise OpsError("The secret BACKUP_KEY is missing or empty.", "invoke secret-init", USAGE)
    return settings


def _target(text: str) -> Target:
    location = text.rstrip("/")
    form = {"s3": _S3, "sftp": _SFTP}.get(location.partition(":")[0], _FOLDER)
    if not form.fullmatch(location):
        raise _wrong("BACKUP_TARGETS", text, f"a target is {_FORMS}")
    return Target(location)


def _tls(environ: Mapping[str, str]) -> dict[str, str]:
    named = (("sslmode", "DATABASE_SSLMODE"), ("sslrootcert", "DATABASE_SSLROOTCERT"))
    return {key: environ[variable] for key, variable in named if environ.get(variable)}


def _needed(environ: Mapping[str, str], key: str) -> str:
    if not (value := environ.get(key, "")):
        raise _wrong(key, "", "it must not be empty")
    return value


def _number(environ: Mapping[str, str], key: str, least: int) -> int:
    value = environ.get(key, "")
    if not (value.isascii() and value.isdigit() and int(value) >= least):
        raise _wrong(key, value, f"it must be a whole number, at least {least}")
    return int(value)


def _flag(environ: Mapping[str, str], key: str) -> bool:
    value = environ.get(key, "")
    if value not in {"true", ""}:
        raise _wrong(key, value, "it must be true or empty")
    return value == "true"


def _wrong(key: str, value: str, why: str) -> OpsError:
    return OpsError(f'{key} is "{value}"; {why}.', "Correct it in the .env file, then deploy.", USAGE)
