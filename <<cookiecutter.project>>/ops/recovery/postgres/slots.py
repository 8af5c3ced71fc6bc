"""The replication slot `backup`, by which a server keeps WAL until it has been received here.

The primary has it, and every standby too: whoever becomes the primary then still has what was not received yet. On a
standby nobody streams from it, so it is advanced by hand. Patroni leaves it alone (`ignore_slots` in patroni.yml).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ops.recovery.postgres import client, wal
from ops.recovery.postgres.client import Unanswered
from ops.recovery.settings import Settings

NAME = "backup"
_FIELDS = """
SELECT pg_is_in_recovery(), coalesce((SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'backup'), ''),
  coalesce((SELECT active FROM pg_replication_slots WHERE slot_name = 'backup'), false),
  coalesce((SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'backup')::text, ''),
  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
"""


@dataclass(frozen=True)
class Node:
    """A server as it stands. status: of its slot, as pg_replication_slots says it ("" without one); restart: from where
    it keeps WAL (0: nowhere); position: what it has replayed, or written."""

    host: str
    standby: bool
    status: str
    active: bool
    restart: int
    position: int


def look(settings: Settings, host: str) -> Node:
    """Ask a server. Raises Unanswered."""
    answer = client.ask(client.conninfo(settings, "any", hosts=[host]), _FIELDS)
    standby, status, active, restart, position = answer.split("|")
    return Node(
        host, standby == "t", status, active == "t", wal.position(restart) if restart else 0, wal.position(position)
    )


def keep(settings: Settings, received: int) -> Iterator[Unanswered]:
    """See to the slot on every server that answers; what those said that do not. received: the position up to which
    WAL is safe here."""
    for host in settings.database_hosts:
        try:
            node = look(settings, host)
            if not node.status:
                create(settings, host)
            elif node.standby and node.status == "lost":
                drop(settings, host)
                create(settings, host)
            elif node.standby and not node.active and node.restart < (to := min(received, node.position)):
                target = client.conninfo(settings, "any", hosts=[host])
                client.ask(target, f"SELECT pg_replication_slot_advance('{NAME}', '{wal.shown(to)}')")
        except Unanswered as error:
            yield error


def create(settings: Settings, host: str) -> None:
    """Make the slot; from now on the server keeps WAL. Raises Unanswered."""
    try:
        _command(settings, host, f"CREATE_REPLICATION_SLOT {NAME} PHYSICAL RESERVE_WAL")
    except Unanswered as error:
        if not re.search(r"already exists", error.said):
            raise


def drop(settings: Settings, host: str) -> None:
    """Remove the slot. Raises Unanswered."""
    _command(settings, host, f"DROP_REPLICATION_SLOT {NAME}")


def _command(settings: Settings, host: str, command: str) -> None:
    client.ask(client.conninfo(settings, "any", replication=True, hosts=[host]), command)
