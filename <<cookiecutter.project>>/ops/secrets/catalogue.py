"""Every secret of the stack: what it is for, who may read it, how strong it must be, how it is made and rotated.

Standard library only: the post-generation hook imports this before anything is installed.
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
    `required_by` names the setting of `.env` that makes an optional secret necessary when it is not empty.
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

    @property
    def made(self) -> str:
        """How it comes to be, in words."""
        if self.length:
            return f"{self.length} random characters of [A-Za-z0-9_-]"
        return "set by hand; starts as an empty file"


def _role(name: str, role: str, *readers: str) -> Secret:
    return Secret(
        name,
        f"PostgreSQL role {role}",
        ("postgres-primary", "postgres-replica", *readers),
        # A mounted secret is bound to the file that was there at the start, hence the restart.
        "replace the file, restart both nodes, run `bash /etc/postgresql/roles.sh` in the primary, recreate readers",
    )


def _broker(name: str, user: str, *readers: str) -> Secret:
    return Secret(
        name,
        f"RabbitMQ user {user}",
        readers,
        "replace the file, render the definitions again (invoke secret-init), restart rabbitmq, recreate the readers",
    )


_SENTINELS = ("redis-sentinel-1", "redis-sentinel-2", "redis-sentinel-3")

_ELASTIC = "replace the file, recreate the readers: elasticsearch makes its users from the files at every start"

CATALOGUE: tuple[Secret, ...] = (
    _role("POSTGRES_PASSWORD", "admin (superuser)"),
    _role("REPLICATION_PASSWORD", "replicator"),
    _role("AUTH_DB_PASSWORD", "auth", "auth-service", "migrate"),
    _role("API_DB_PASSWORD", "api", "api", "migrate"),
    _role("NOTIFICATION_DB_PASSWORD", "notification", "notification-service", "migrate"),
    _role("METRICS_DB_PASSWORD", "metrics (pg_monitor)", "postgres-exporter-primary", "postgres-exporter-replica"),
    Secret(
        "PATRONI_PASSWORD",
        "the PostgreSQL nodes' orders to each other (switchover, restart), with docker-compose.failover.yml",
        ("postgres-primary", "postgres-replica"),
        "replace the file, restart both nodes, the standby first",
    ),
    Secret(
        "REDIS_PASSWORD",
        "Redis default user, the replica's login at the primary, and who may ask the sentinels",
        ("redis-primary", "redis-replica", *_SENTINELS, "api", "redis-exporter"),
        "replace the file, restart redis-primary, redis-replica and the other readers together; the cache survives",
    ),
    Secret(
        "REDIS_SENTINEL_PASSWORD",
        "the sentinels' login at the nodes and at each other: whoever has it may change roles",
        ("redis-primary", "redis-replica", *_SENTINELS),
        "replace the file, restart its readers together; who is primary survives",
    ),
    _broker("RABBITMQ_PASSWORD", "admin", "rabbitmq", "rabbitmq-2", "rabbitmq-3"),
    _broker("API_RABBITMQ_PASSWORD", "api", "api"),
    _broker("NOTIFICATION_RABBITMQ_PASSWORD", "notification", "notification-service"),
    Secret(
        "RABBITMQ_COOKIE",
        "nodes of a RabbitMQ cluster know each other by it: whoever has it may do anything to them",
        ("rabbitmq", "rabbitmq-2", "rabbitmq-3"),
        "replace the file, stop all three nodes, deploy: nodes with different cookies do not speak to each other",
    ),
    Secret(
        "JWT_SECRET",
        "auth-service signs access tokens with it, api verifies them",
        ("auth-service", "api"),
        "move the value to JWT_SECRET_PREVIOUS, write a new one, recreate the readers; empty JWT_SECRET_PREVIOUS when "
        "the longest token life has passed",
        length=KEY_LENGTH,
        minimum_length=32,
        minimum_bits=128,
    ),
    Secret(
        "JWT_SECRET_PREVIOUS",
        "still verifies tokens signed before the last rotation",
        ("auth-service", "api"),
        "filled and emptied by the rotation of JWT_SECRET",
        length=0,
        minimum_length=32,
        minimum_bits=128,
        optional=True,
    ),
    Secret(
        "SMTP_PASSWORD",
        "login at the mail server, given by its operator",
        ("notification-service", "alertmanager"),
        "change it at the mail server, replace the file, recreate notification-service; mails wait in the queue",
        length=0,
        minimum_length=8,
        minimum_bits=28,
        optional=True,
        required_by="SMTP_USER",
    ),
    Secret(
        "GRAFANA_PASSWORD",
        "Grafana user admin",
        ("grafana",),
        "replace the file, run `grafana cli admin reset-admin-password`: Grafana reads it only on an empty volume",
    ),
    Secret("ELASTIC_PASSWORD", "Elasticsearch superuser elastic", ("elasticsearch", "elasticsearch-setup"), _ELASTIC),
    Secret("KIBANA_PASSWORD", "Elasticsearch user kibana_system", ("elasticsearch", "kibana"), _ELASTIC),
    Secret(
        "KIBANA_ENCRYPTION_KEY",
        "encrypts what Kibana saves",
        ("kibana",),
        "move the old one to xpack.encryptedSavedObjects.keyRotation.decryptionOnlyKeys first: without it, "
        "what it encrypted cannot be read",
        length=KEY_LENGTH,
        minimum_length=32,
        minimum_bits=128,
    ),
    Secret(
        "LOG_SHIPPER_PASSWORD",
        "Elasticsearch user that may only append logs",
        ("elasticsearch", "otel-collector"),
        _ELASTIC,
    ),
)

BY_NAME: dict[str, Secret] = {secret.name: secret for secret in CATALOGUE}


def of_team(name: str) -> Secret:
    """A secret that a Compose file declares and the catalogue does not know: the team's own, given by somebody else."""
    return Secret(
        name,
        "declared in a Compose file of yours",
        (),
        "change it where it was given, run the command and type the new value; it replaces the readers",
        length=0,
    )
