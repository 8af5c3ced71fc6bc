"""Counts and checksums of every table at one exact position of the WAL.

They are read on the standby while the primary is at work. Replay is paused for the milliseconds in which a snapshot is
opened in every database; then it goes on, and the tables are read at leisure. A recovery to that position has to give
the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ops.recovery.log import say
from ops.recovery.postgres import client, wal
from ops.recovery.postgres.client import Unanswered
from ops.recovery.settings import Settings

# How the server spells values must not depend on whom it is asked as.
SPELLING = """
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET search_path = ''; SET row_security = off; SET statement_timeout = 0; SET jit = off;
SET client_encoding = 'UTF8'; SET xmlbinary = 'base64'; SET quote_all_identifiers = off; SET lc_monetary = 'C';
"""
# Everything that holds rows and is in the WAL. Of a partitioned table its partitions do.
TABLES = """
SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname) ORDER BY 1), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\\_%' AND (c.relkind = 'r' OR c.relispopulated);
"""
DATABASES = "SELECT coalesce(json_agg(datname ORDER BY 1), '[]') FROM pg_database WHERE datallowconn"
# A pause ends by itself after so many seconds, whatever becomes of whoever asked for it.
_PAUSE = """
DO $$ BEGIN PERFORM pg_wal_replay_pause(); PERFORM pg_sleep(3); PERFORM pg_wal_replay_resume(); END $$;
"""
_SESSION = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0;"


def reading(table: str) -> str:
    """The statement for one table: how many rows, and a sum of their hashes that no order changes."""
    return f"SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(t::text, 0)), 0) FROM ONLY {table} AS t;"


@dataclass(frozen=True)
class Table:
    """Rows of a table, and the sum of their hashes."""

    rows: int
    checksum: str


@dataclass(frozen=True)
class Fingerprint:
    """Tables by database and name, at a position of the WAL (as PostgreSQL writes it)."""

    position: str
    databases: Mapping[str, Mapping[str, Table]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the record of an entry."""
        return {
            "position": self.position,
            "databases": {
                name: {table: [each.rows, each.checksum] for table, each in tables.items()}
                for name, tables in self.databases.items()
            },
        }


def decode(found: Mapping[str, Any]) -> Fingerprint:
    """The inverse of `as_json`."""
    return Fingerprint(
        found["position"],
        {
            name: {table: Table(int(rows), str(checksum)) for table, (rows, checksum) in tables.items()}
            for name, tables in found["databases"].items()
        },
    )


def differences(noted: Fingerprint, found: Mapping[str, Mapping[str, Table]]) -> Iterator[str]:
    """What a recovered server has otherwise than was noted, a line each."""
    for database in sorted(noted.databases.keys() | found.keys()):
        if database not in found or database not in noted.databases:
            yield f"database {database} is {'missing' if database not in found else 'there, and was not'}"
            continue
        before, now = noted.databases[database], found[database]
        for table in sorted(before.keys() | now.keys()):
            if table not in now or table not in before:
                yield f"{database}: table {table} is {'missing' if table not in now else 'there, and was not'}"
            elif before[table].rows != now[table].rows:
                yield f"{database}: table {table} has {now[table].rows} rows, {before[table].rows} were noted"
            elif before[table] != now[table]:
                yield f"{database}: table {table} has other content than was noted ({now[table].rows} rows)"


class Session:
    """A connection that stays open between questions."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def tell(self, statement: str) -> None:
        """Send a statement without waiting for what comes of it. Raises Unanswered."""
        try:
            assert self._child.stdin
            self._child.stdin.write(statement + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise Unanswered(self._reason()) from None

    def ask(self, statement: str) -> str:
        """The answer to one statement, on one line. Raises Unanswered."""
        self.tell(statement + "\n\\echo ~")
        assert self._child.stdout
        lines: list[str] = []
        for line in self._child.stdout:
            if line == "~\n":
                return "\n".join(lines)
            lines.append(line.rstrip("\n"))
        raise Unanswered(self._reason())

    def _reason(self) -> str:
        _, said = self._child.communicate()
        return client.last_words(said)

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.communicate()


@contextmanager
def session(argv: Sequence[str]) -> Iterator[Session]:
    """A session that ends with the block."""
    found = Session(argv)
    try:
        yield found
    finally:
        found.close()


def take(settings: Settings) -> Fingerprint | None:
    """The fingerprint of the stack as it is; None when there is no standby. Raises Unanswered."""
    if len(settings.database_hosts) < 2:
        return None
    try:
        target = client.conninfo(settings, "standby")
        databases = json.loads(client.ask(target, DATABASES))
    except Unanswered as error:
        say("warning", "no standby answers: the entry has no fingerprint", reason=error.said)
        return None
    # Replay that cannot wait any longer cancels whoever reads.
    return client.patiently(lambda: _taken(settings, databases))


def _taken(settings: Settings, databases: Sequence[str]) -> Fingerprint:
    with ExitStack() as stack:
        host = _standby(settings)

        def connect(database: str) -> Session:
            target = client.conninfo(settings, "standby", database, hosts=[host])
            found = stack.enter_context(session(client.psql(target)))
            found.ask(_SESSION)
            return found

        control = connect(settings.database)
        guard = connect(settings.database)
        sessions = {name: connect(name) for name in databases}
        for each in sessions.values():
            each.ask(SPELLING)
        guard.tell(_PAUSE)
        try:
            while control.ask("SELECT pg_get_wal_replay_pause_state();") != "paused":
                pass
            for each in sessions.values():
                each.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM pg_class;")
            position = control.ask("SELECT pg_last_wal_replay_lsn();")
            still = control.ask("SELECT pg_get_wal_replay_pause_state();")
        finally:
            control.ask("SELECT pg_wal_replay_resume();")
        if still != "paused":
            raise Unanswered("the pause ended before every database was open")
        wal.position(position)
        return Fingerprint(position, {name: tables(each) for name, each in sessions.items()})


def _standby(settings: Settings) -> str:
    for host in settings.database_hosts:
        try:
            if client.ask(client.conninfo(settings, "standby", hosts=[host]), "SELECT 1"):
                return host
        except Unanswered:
            continue
    raise Unanswered("no standby answers")


def tables(of: Session) -> dict[str, Table]:
    """Every table of the database that a session is connected to."""
    found = {}
    for name in json.loads(of.ask(TABLES)):
        rows, _, checksum = of.ask(reading(name)).partition("|")
        found[name] = Table(int(rows), checksum)
    return found
