"""Asking the servers of the stack: as the role `backup`, whichever node has the role that is wanted."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from ops.base import libpq
from ops.base.errors import OpsError
from ops.recovery.log import say
from ops.recovery.settings import Settings

ROLE = "backup"
SECRET = "BACKUP_DB_PASSWORD"
T = TypeVar("T")
Wanted = Literal["primary", "standby", "any"]
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 30.0
# How long a backup waits for somebody to be the primary, and between two attempts.
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 5.0
# What itself takes longer than that, such as copying everything.
LEAST_ATTEMPTS = 3


class Unanswered(OpsError):
    """A server does not answer, or refuses. said: what it said."""

    def __init__(self, said: str) -> None:
        super().__init__(f"PostgreSQL: {said}", "invoke health")
        self.said = said


def conninfo(
    settings: Settings,
    wanted: Wanted = "primary",
    database: str = "postgres",
    replication: bool = False,
    hosts: Sequence[str] = (),
) -> str:
    """A connection string of libpq without a password. hosts: HOST:PORT, instead of every node."""
    parts = {
        "user": ROLE,
        "dbname": libpq.quoted(database),
        "passfile": str(passfile(settings)),
        "target_session_attrs": wanted,
        "connect_timeout": str(_CONNECT_SECONDS),
        # A node that vanished without a word.
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "20000",
        "application_name": "wal-receiver" if replication else "backup",
        **{key: libpq.quoted(value) for key, value in settings.tls.items()},
    }
    if replication:
        parts["replication"] = "true"
    return libpq.conninfo(hosts or settings.managed_hosts or settings.database_hosts, parts)


def passfile(settings: Settings) -> Path:
    """The password in the form of libpq, in memory, as it is at this moment."""
    password = settings.secret(SECRET).replace("\\", "\\\\").replace(":", "\\:")
    path = settings.paths.memory / "backup.pgpass"
    line = f"*:*:*:{ROLE}:{password}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != line:
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(line, encoding="utf-8")
        fresh.replace(path)
    return path


def psql(target: str, *options: str) -> list[str]:
    """The command line of psql for a connection string: bare values, fields separated by |."""
    fixed = ("--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
    return ["psql", *fixed, *options, target]


def ask(target: str, statement: str, seconds: float = _ANSWER_SECONDS) -> str:
    """What a server answers. Raises Unanswered."""
    try:
        done = subprocess.run(
            psql(target, f"--command={statement}"), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unanswered(f"no answer within {seconds:.0f} s") from None
    if done.returncode:
        raise Unanswered(last_words(done.stderr))
    return done.stdout.strip()


def patiently(work: Callable[[], T], failure: type[OpsError] = Unanswered) -> T:
    """What `work` returns; it is tried again while it raises `failure`, for some minutes from the first time on.

    For a failover, and for a primary that restarts: nobody answers meanwhile, and a backup goes on afterwards.
    """
    ends = 0.0
    for attempt in itertools.count(1):
        try:
            return work()
        except failure as error:
            ends = ends or time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() >= ends and attempt >= LEAST_ATTEMPTS:
                raise
            say("warning", "PostgreSQL did not answer: trying again", reason=error.message)
            time.sleep(PAUSE_SECONDS)
    raise AssertionError


def last_words(text: str) -> str:
    """The last lines that a program of PostgreSQL wrote, in one."""
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    return "; ".join(lines[-4:]) or "no reason given"
