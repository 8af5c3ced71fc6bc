"""The labels by which a service says what it is to the stack; docs/architecture.md has the table of them.

A service with one of PARTS is a part of the stack; every other one is the owner's own, whatever it is made of.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

PREFIX = "ops."

# Holds data; its value says which kind.
STATEFUL = "ops.stateful"
# Which tier of the stack it is in: DATA or MONITORING.
TIER = "ops.tier"
DATA, MONITORING = "data", "monitoring"
# A part of the stack that is in neither; its value says which.
PART = "ops.part"
PARTS = frozenset({STATEFUL, TIER, PART})
# The part that takes backups, and its service that mounts volumes to save them, each at FOLDER/NAME.
BACKUPS = "backup"
VOLUMES = "/volumes"

# A PostgreSQL outside of the stack: the service that asks it, the network with the way out, the file with both, and the
# one with who uses it.
POSTGRES_CLIENT = "postgres-client"
MANAGED = "managed"
MANAGED_FILE, CLIENTS_FILE = "docker-compose.postgres-managed.yml", "docker-compose.postgres-clients.yml"

PORT = "ops.port"
ROUTE = "ops.route"
LOGINS = "ops.route.logins"
UPLOADS = "ops.route.uploads"
HOST = "ops.host"
INTERNAL = "ops.internal"
AFFINITY = "ops.affinity"
READY = "ops.ready"
LIVE = "ops.live"
SMOKE = "ops.smoke"
# How it is replaced: ROLLING, beside its successor, or by a RESTART.
ROLLOUT = "ops.rollout"
ROLLING, RESTART = "rolling", "restart"
# How long requests that are open in the old containers may take, in seconds.
DRAIN = "ops.drain"

# It runs to its end: MIGRATION before a rollout, MANUAL when a person says so, with SCHEDULE at its times.
JOB = "ops.job"
MIGRATION, MANUAL = "migration", "manual"
SCHEDULE = "ops.schedule"
SCHEDULED = "schedule"
# The service that starts scheduled jobs.
SCHEDULER = "scheduler"

# Not exported to Kubernetes; its value says who does its work there.
OMIT = "ops.kubernetes.omit"
# In Kubernetes its pods run where those of the service are that this names: they share volumes which one machine at a
# time may have.
BESIDE = "ops.kubernetes.beside"

# RUNNING: it need not stop while data is replaced.
RESTORE = "ops.restore"
RUNNING = "running"

# Names that a service of the owner's cannot have: HAProxy's sections (infrastructure/haproxy) and nginx's names, beside
# those of the pools; and the machine itself.
SECTIONS = frozenset({"any", "http", "metrics", "pool", "requests"})
RESERVED = SECTIONS | {"internal", "localhost"}

# Every label that anything here reads. A new one is added here, and to the table.
KNOWN = PARTS | {
    *(PORT, ROUTE, LOGINS, UPLOADS, HOST, INTERNAL, AFFINITY, READY, LIVE, SMOKE, ROLLOUT, DRAIN, OMIT, BESIDE),
    *(JOB, SCHEDULE, "ops.schedule.timezone", "ops.schedule.overlap", "ops.schedule.missed", "ops.schedule.limit"),
    *("ops.schema", "ops.database", "ops.database-connections"),
    *("ops.rabbitmq", "ops.rabbitmq.definitions", "ops.redis"),
    *("ops.backup", RESTORE),
    "ops.metrics",
    "ops.base",  # of a server's image of ours: what it was built on
}


def is_backup(said: Mapping[str, str]) -> bool:
    """Whether labels are those of a service that takes or proves backups."""
    return said.get(PART) == BACKUPS


def suggestion(label: str) -> str:
    """The known label that one was probably meant to be; "" when none is like it."""
    return next(iter(difflib.get_close_matches(label, sorted(KNOWN), 1, cutoff=0.7)), "")
