"""Dumps of a PostgreSQL outside of the stack, and a server of this container that they are loaded into.

A provider gives neither the files of its server nor its write-ahead log away. So an entry holds a dump of each database
that services declare, as it was at one moment, with the rows and a checksum of every table at that very moment. To go
back to any other moment is what the provider's own point-in-time recovery is for.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ops.base.errors import REFUSED, OpsError
from ops.recovery import catalogue, configuration, contents
from ops.recovery.catalogue import Entry, Part
from ops.recovery.log import say
from ops.recovery.postgres import client, fingerprint, server
from ops.recovery.postgres.client import Unanswered
from ops.recovery.postgres.fingerprint import Fingerprint, Table
from ops.recovery.postgres.server import Server
from ops.recovery.repository import CommandFailed, Repository
from ops.recovery.settings import Settings

# In its snapshot.
FILE = "database.dump"
_NO_ROLE = r"password authentication failed|role .* does not exist|permission denied for database"
# What no time changes: how the connection is protected, whom the server lets in, which databases it has.
_STAYS_SO = r"certificate|SSL|TLS|pg_hba\.conf|does not exist"
# As the stack's own servers are made.
_INITDB = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-sync")


def declared(document: Mapping[str, Any], common: str) -> list[str]:
    """The databases that the services of a resolved configuration own. common: where the schemas are."""
    said = [entry.get("labels") or {} for entry in (document.get("services") or {}).values()]
    own = {str(each["ops.database"]) for each in said if "ops.database" in each}
    return [*([common] if any("ops.schema" in each for each in said) else []), *sorted(own)]


def take(settings: Settings, repository: Repository, entry_id: str) -> Iterator[Part]:
    """Dump every database that the services of the newest release own, a part each. Raises OpsError."""
    names = declared(configuration.deployed(), settings.database)
    if not names:
        raise OpsError(
            f"Which databases at {settings.managed_name} are the services' is not known: no release declares one.",
            "Deploy, or give services that own a schema or a database the label ops.schema or ops.database.",
        )
    version = client.patiently(lambda: _version(settings, names[0]))
    _refuse_newer(settings, version)
    for name in names:
        say("info", "a database is dumped", database=name, server=settings.managed_name)
        yield client.patiently(lambda name=name: _dumped(settings, repository, entry_id, name, version))  # type: ignore[misc]


def _version(settings: Settings, database: str) -> int:
    try:
        return int(client.ask(client.conninfo(settings, database=database), "SHOW server_version_num"))
    except Unanswered as error:
        if re.search(_NO_ROLE, error.said):
            raise _no_role(settings, database, error.said) from None
        if re.search(_STAYS_SO, error.said):
            raise OpsError(f"PostgreSQL at {settings.managed_name}: {error.said}", "invoke health", REFUSED) from None
        raise


def _no_role(settings: Settings, database: str, said: str) -> OpsError:
    return OpsError(
        f"PostgreSQL at {settings.managed_name} does not let the role {client.ROLE} in: {said}",
        f"As its administrator: CREATE ROLE {client.ROLE} LOGIN PASSWORD 'the value of the secret {client.SECRET}';"
        f' GRANT pg_read_all_data TO {client.ROLE}; GRANT CONNECT ON DATABASE "{database}" TO {client.ROLE};',
        REFUSED,
    )


def _refuse_newer(settings: Settings, version: int) -> None:
    """Raise OpsError when the programs here are older than the server: they could not read all of it."""
    done = subprocess.run(["pg_dump", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\) (\d+)", done.stdout)
    here, there = int(found[1]) if found else 0, version // 10000
    if here < there:
        raise OpsError(
            f"{settings.managed_name} is PostgreSQL {there}, and pg_dump of the part backup is {here}: it cannot read a"
            " newer server.",
            f"Set POSTGRES_IMAGE in the .env file to PostgreSQL {there}, then deploy.",
            REFUSED,
        )


def _dumped(settings: Settings, repository: Repository, entry_id: str, name: str, version: int) -> Part:
    """One database. What is counted and what is dumped is one snapshot of it."""
    target = client.conninfo(settings, database=name)
    with fingerprint.session(client.psql(target)) as session:
        session.ask(fingerprint.SPELLING)
        session.ask("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;")
        session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
        snapshot = session.ask("SELECT pg_export_snapshot();")
        argv = ["pg_dump", "--format=custom", "--compress=none", "--no-password", f"--snapshot={snapshot}"]
        part = part_of(name)
        try:
            saved = repository.save_output([*argv, f"--dbname={target}"], FILE, catalogue.tags(entry_id, part))
        except CommandFailed as error:
            raise OpsError(f"The database {name} cannot be dumped: {error.message}", error.remedy) from None
        noted = {table: [each.rows, each.checksum] for table, each in fingerprint.tables(session).items()}
        roles = json.loads(session.ask(contents.LIST_ROLES.strip() + ";"))
    details = {"database": name, "version": version, "tables": noted, "roles": [each["name"] for each in roles]}
    return catalogue.part(repository, part, saved, details)


def part_of(database: str) -> str:
    """The name of the part that holds a database."""
    return f"{catalogue.DUMP}{database}"


def noted(entry: Entry) -> dict[str, dict[str, Table]]:
    """The tables of every database that an entry holds a dump of, as they were noted."""
    return {
        str(part.details["database"]): {
            table: Table(int(rows), str(checksum)) for table, (rows, checksum) in part.details["tables"].items()
        }
        for part in entry.dumps
    }


# ── bringing them back ────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def loaded(repository: Repository, entry: Entry, into: Path) -> Iterator[Server]:
    """A running server of this container with the databases of an entry.

    into: a folder that does not exist yet; it is gone afterwards. Roles are there by name, without passwords. Raises
    OpsError for a dump that is damaged, or that this version of PostgreSQL cannot read.
    """
    try:
        into.mkdir(parents=True)
        data = into / "data"
        argv = ["initdb", f"--pgdata={data}", f"--username={client.ROLE}", "--auth=trust", *_INITDB]
        server.run(argv, "A new server could not be made")
        # It is no recovery; a server that is started like one asks for the command all the same.
        with server.running(data, into / "server", {"restore_command": "'false'"}) as running:
            _make_roles(running, sorted({name for part in entry.dumps for name in part.details["roles"]}))
            for part in entry.dumps:
                _load(repository, part, running, into / FILE)
            yield running
    finally:
        shutil.rmtree(into, ignore_errors=True)


def _make_roles(running: Server, names: Sequence[str]) -> None:
    for name in names:
        if name != client.ROLE:
            running.sql(f"CREATE ROLE {_identifier(name)} LOGIN")


def _load(repository: Repository, part: Part, running: Server, file: Path) -> None:
    name = str(part.details["database"])
    with file.open("wb") as sink:
        repository.dump(part.snapshot, f"/{FILE}", sink)
    if name not in running.databases():
        running.sql(f"CREATE DATABASE {_identifier(name)} TEMPLATE template0")
    argv = ["pg_restore", "--exit-on-error", "--no-password", f"--dbname={running.conninfo(name)}", str(file)]
    server.run(argv, f"The dump of the database {name} cannot be loaded")
    with suppress(FileNotFoundError):
        file.unlink()


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def problems(repository: Repository, entry: Entry, into: Path) -> Iterator[str]:
    """What is wrong with the dumps of an entry, a line each. Raises OpsError when they cannot be loaded at all."""
    before = noted(entry)
    with loaded(repository, entry, into) as running:
        now = {}
        for name in before:
            with fingerprint.session(client.psql(running.conninfo(name))) as session:
                session.ask(fingerprint.SPELLING)
                now[name] = fingerprint.tables(session)
    yield from fingerprint.differences(Fingerprint("", before), now)
