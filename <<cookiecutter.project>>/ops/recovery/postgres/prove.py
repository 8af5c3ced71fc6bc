"""Proves what an entry holds of PostgreSQL: recovered, it has to have what was noted when it was taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ops.recovery import catalogue
from ops.recovery.catalogue import Entry
from ops.recovery.postgres import client, fingerprint, recover
from ops.recovery.postgres.recover import Until
from ops.recovery.postgres.server import Server
from ops.recovery.repository import Repository
from ops.recovery.settings import Settings


def problems(settings: Settings, repository: Repository, entry: Entry, into: Path) -> Iterator[str]:
    """What is wrong with it, a line each. into: a folder that does not exist yet. Raises OpsError when it cannot be
    recovered at all."""
    details = entry.parts[catalogue.POSTGRES].details
    noted = fingerprint.decode(details["fingerprint"]) if details.get("fingerprint") else None
    until = Until(position=noted.position if noted else str(details["end"]))
    with recover.recovered(settings, repository, entry, into, until) as found:
        tables = {name: _tables(found, name) for name in found.databases()}
    if noted:
        yield from fingerprint.differences(noted, tables)


def _tables(server: Server, database: str) -> dict[str, fingerprint.Table]:
    with fingerprint.session(client.psql(server.conninfo(database))) as session:
        session.ask(fingerprint.SPELLING)
        return fingerprint.tables(session)
