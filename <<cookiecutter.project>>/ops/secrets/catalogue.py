"""The stack's own secrets: what each is for, who may read it, how strong it must be, how it is made and rotated.

Those of the services come from their Compose files and labels: declared.py.
"""

from __future__ import annotations

from dataclasses import dataclass

# What any shell, URL, connection string, YAML or .env file takes without quoting.
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

# 43 characters of 64 are 258 bits, as strong as the hashes that guard them.
PASSWORD_LENGTH = 43
# HS256 wants a key at least as long as its 64-byte block; Kibana refuses less than 32 characters.
KEY_LENGTH = 86


@dataclass(frozen=True)
class Secret:
    """One secret, kept in the file `config/<env>/secrets/<name>`.

    `length` is how many characters a generated one has; 0 means that it cannot be generated (somebody else gives it, or
    it starts empty). `minimum_length` (characters) and `minimum_bits` (estimated entropy) bind secrets set by hand.
    `required_by` names the setting of `.env` that makes an optional secret necessary when it is not empty. `rotation`
    says what `invoke secret-rotate` does, and `after` what is left to do then. `keeps` names the secret that takes the
    old value, for keys of which two are valid. `shared`: services of the team may read it as well. `text`: it has
    lines and a form of its own, as a private key has, so its strength cannot be judged here.
    """

    name: str
    purpose: str
    readers: tuple[str, ...]
    rotation: str
    length: int = PASSWORD_LENGTH
    minimum_length: int = 20
    minimum_bits: int = 64
    optional: bool = False
    required_by: str = ""
    keeps: str = ""
    after: str = ""
    shared: bool = False
    text: bool = False

    @property
    def provided(self) -> bool:
        """Whether a person must provide it: it is not generated, and nothing works without it."""
        return not (self.length or self.optional)

    @property
    def made(self) -> str:
        """How it comes to be, in words."""
        if self.length:
            return f"{self.length} random characters of [A-Za-z0-9_-]"
        return "set by hand; starts as an empty file"


ROLE_ROTATION = "ALTER ROLE on the primary; open connections stay, the readers are replaced"
REDIS_ROTATION = "ACL SETUSER on every node and sentinel; open connections stay, the readers are replaced"
USER_ROTATION = "imported into the running broker; open connections stay, the readers are replaced"


def _role(name: str, role: str, *readers: str) -> Secret:
    return Secret(name, f"PostgreSQL role {role}", ("postgres-primary", "postgres-replica", *readers), ROLE_ROTATION)


_BACKUP = ("wal-receiver", "backup", "backup-verify")
_SENTINELS = ("redis-sentinel-1", "redis-sentinel-2", "redis-sentinel-3")

_ELASTIC = "its users are written again, which it notices within seconds; the readers are replaced"

CATALOGUE: tuple[Secret, ...] = (
    _role("POSTGRES_PASSWORD", "admin (superuser)"),
    _role("REPLICATION_PASSWORD", "replicator"),
    _role("METRICS_DB_PASSWORD", "metrics (pg_monitor)", "postgres-exporter-primary", "postgres-exporter-replica"),
    Secret(
        "PATRONI_PASSWORD",
        "the PostgreSQL nodes' orders to each other (switchover, restart), with docker-compose.postgres-failover.yml",
        ("postgres-primary", "postgres-replica"),
        "both Patroni nodes reload their configuration",
    ),
    Secret(
        "REDIS_PASSWORD",
        "Redis default user, the replica's login at the primary, and who may ask the sentinels",
        ("redis-primary", "redis-replica", *_SENTINELS, "redis-exporter", "backup"),
        "added to the user on every node and sentinel, the readers are replaced, the old one is removed",
        shared=True,
    ),
    Secret(
        "REDIS_SENTINEL_PASSWORD",
        "the sentinels' login at the nodes and at each other: whoever has it may change roles",
        ("redis-primary", "redis-replica", *_SENTINELS),
        "added to the user on every node, the sentinels log in with it, the old one is removed",
    ),
    Secret(
        "RABBITMQ_PASSWORD", "RabbitMQ user admin", ("rabbitmq", "rabbitmq-2", "rabbitmq-3", "backup"), USER_ROTATION
    ),
    Secret(
        "RABBITMQ_COOKIE",
        "nodes of a RabbitMQ cluster know each other by it: whoever has it may do anything to them",
        ("rabbitmq", "rabbitmq-2", "rabbitmq-3"),
        "set in every running node; nodes that are connected stay connected",
    ),
    Secret(
        "SMTP_PASSWORD",
        "login at the mail server, given by its operator",
        ("alertmanager",),
        "change it at the mail server and type it here; the readers are replaced",
        length=0,
        minimum_length=8,
        minimum_bits=28,
        optional=True,
        required_by="SMTP_USER",
        shared=True,
    ),
    Secret(
        "DEPLOY_WEBHOOK_URL",
        "where deploys are announced, such as an incoming webhook of Slack; empty: nowhere",
        (),
        "make a new address at the receiver and type it here; the next deploy uses it",
        length=0,
        optional=True,
    ),
    Secret(
        "GRAFANA_PASSWORD",
        "Grafana user admin",
        ("grafana",),
        "changed in Grafana's database while it runs",
    ),
    Secret("ELASTIC_PASSWORD", "Elasticsearch superuser elastic", ("elasticsearch", "elasticsearch-setup"), _ELASTIC),
    Secret("KIBANA_PASSWORD", "Elasticsearch user kibana_system", ("elasticsearch", "kibana"), _ELASTIC),
    Secret(
        "KIBANA_ENCRYPTION_KEY",
        "encrypts what Kibana saves",
        ("kibana",),
        "Kibana is replaced; the old key still decrypts what it encrypted",
        length=KEY_LENGTH,
        minimum_length=32,
        minimum_bits=128,
        keeps="KIBANA_ENCRYPTION_KEY_PREVIOUS",
    ),
    Secret(
        "KIBANA_ENCRYPTION_KEY_PREVIOUS",
        "still decrypts what Kibana saved before the last rotation",
        ("kibana",),
        "emptied, and Kibana is replaced: what this key encrypted cannot be read any more",
        length=0,
        minimum_length=32,
        minimum_bits=128,
        optional=True,
    ),
    Secret(
        "LOG_SHIPPER_PASSWORD",
        "Elasticsearch user that may only append logs",
        ("elasticsearch", "otel-collector"),
        _ELASTIC,
    ),
    Secret(
        "BACKUP_DB_PASSWORD",
        "PostgreSQL role backup (replication, pg_read_all_data), with docker-compose.backup.yml",
        ("wal-receiver", "backup"),
        ROLE_ROTATION,
    ),
    Secret(
        "BACKUP_KEY",
        "encrypts every backup: without it none can be read, by nobody. Keep a copy where the backups are not",
        _BACKUP,
        "added to the repositories of every target, which must answer; then the old one is removed from them",
        after="Keep a copy of the new key where the backups are not, and remove the one of the old key.",
    ),
    Secret(
        "BACKUP_S3_KEY_ID",
        "which access key the S3 targets of BACKUP_TARGETS are used with, given by their operator",
        _BACKUP,
        "make a new access key at the operator and type its id here; the readers are replaced",
        length=0,
        minimum_length=3,
        minimum_bits=0,
        optional=True,
    ),
    Secret(
        "BACKUP_S3_SECRET",
        "the secret of that access key",
        _BACKUP,
        "make a new access key at the operator and type its secret here; the readers are replaced",
        length=0,
        minimum_length=16,
        optional=True,
    ),
    Secret(
        "BACKUP_SSH_KEY",
        "private key (OpenSSH, without a passphrase) for the SFTP targets of BACKUP_TARGETS",
        _BACKUP,
        "add the new public key at the SFTP servers and put the private one here; the readers are replaced",
        length=0,
        optional=True,
        text=True,
    ),
)

BY_NAME: dict[str, Secret] = {secret.name: secret for secret in CATALOGUE}
