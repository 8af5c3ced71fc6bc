"""A throw-away server of this container, on a Unix socket, with the data of a backup."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.base import libpq
from ops.base.errors import OpsError
from ops.recovery.postgres import client
from ops.recovery.postgres.client import Unanswered

_ASK_SECONDS = 0.2
# Nothing of it must survive a crash, and nobody but this container reaches it.
_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "archive_mode": "off",
    "autovacuum": "off",
    "hot_standby": "on",
    "jit": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "unix_socket_permissions": "0700",
    "logging_collector": "off",
    "log_min_messages": "log",
    "huge_pages": "off",
    "restart_after_crash": "off",
}
# What a server in recovery must have at least as much of as the one whose WAL it reads.
_AS_BEFORE = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_transactions": "max_prepared_xacts",
    "max_locks_per_transaction": "max_locks_per_xact",
}


class Stopped(OpsError):
    """The server ended by itself. said: what its log says."""

    def __init__(self, said: str) -> None:
        super().__init__(f"The recovery has failed: {said}")
        self.said = said


@dataclass(frozen=True)
class Server:
    """A running server. socket: the folder of its socket; superuser: who may do everything there."""

    data: Path
    socket: Path
    log: Path
    superuser: str = client.ROLE

    def conninfo(self, database: str = "postgres") -> str:
        """A connection string of libpq."""
        return f"host={self.socket} user={self.superuser} dbname={libpq.quoted(database)}"

    def sql(self, statement: str, database: str = "postgres", seconds: float = 3600) -> str:
        """What it answers. Raises Unanswered."""
        return client.ask(self.conninfo(database), statement, seconds)

    def databases(self) -> list[str]:
        """Names of the databases that can be connected to."""
        names = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1"
        return self.sql(names).splitlines()


@contextmanager
def running(data: Path, work: Path, recovery: Mapping[str, str]) -> Iterator[Server]:
    """Start a server on a data folder, wait until it has recovered and takes writes, and end it with the block.

    work: an empty folder for what it needs besides. recovery: settings of the recovery, quoted. Raises Stopped.
    """
    work.mkdir(parents=True, exist_ok=True)
    configuration = work / "server.conf"
    settings = {**_SETTINGS, **as_before(control_data(data)), **recovery}
    settings |= {
        "data_directory": f"'{data}'",
        "hba_file": f"'{work / 'hba.conf'}'",
        "ident_file": f"'{work / 'ident.conf'}'",
        "unix_socket_directories": f"'{work}'",
    }
    configuration.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8")
    (work / "hba.conf").write_text("local all all trust\n", encoding="utf-8")
    (work / "ident.conf").write_text("", encoding="utf-8")
    # What somebody set by ALTER SYSTEM is for the server that this was copied from.
    (data / "postgresql.auto.conf").write_text("", encoding="utf-8")
    (data / "standby.signal").unlink(missing_ok=True)
    (data / "recovery.signal").touch()
    data.chmod(0o700)
    log = work / "server.log"
    argv = ["postgres", "-D", str(data), f"--config-file={configuration}"]
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(argv, stdout=sink, stderr=sink) as child,
    ):
        try:
            server = Server(data, work, log)
            _wait(server, child)
            superuser = server.sql("SELECT rolname FROM pg_roles WHERE oid = 10")
            yield Server(data, work, log, superuser)
        finally:
            child.send_signal(signal.SIGQUIT)


def _wait(server: Server, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None:
        try:
            if server.sql("SELECT pg_is_in_recovery()", seconds=60) == "f":
                return
        except Unanswered:
            pass
        time.sleep(_ASK_SECONDS)
    raise Stopped(reason(server.log.read_text(encoding="utf-8", errors="replace")))


def reason(log: str) -> str:
    """Why a server ended, by its log."""
    # Whoever asked while it started was refused by a FATAL as well.
    found = re.findall(r"(?:FATAL|PANIC):\s+(?!\s|the database system is )(.*)", log)
    return str(found[0]).rstrip(".") if found else client.last_words(log)


def control_data(data: Path) -> dict[str, str]:
    """What pg_controldata says, by name. Raises OpsError."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(["pg_controldata", str(data)], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise OpsError(f"What was restored is no database: {client.last_words(done.stderr)}.")
    lines = (line.partition(":") for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def as_before(control: Mapping[str, str]) -> dict[str, str]:
    """Settings that must not be smaller than they were."""
    return {
        name: value for name, field in _AS_BEFORE.items() if (value := control.get(f"{field} setting", "")).isdigit()
    }


def run(argv: Sequence[str], what: str) -> None:
    """Run a program of PostgreSQL. Raises OpsError with its last words."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OpsError(f"{what}: {client.last_words(done.stderr or done.stdout)}.")
