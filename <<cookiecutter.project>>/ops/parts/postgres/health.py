"""The health of PostgreSQL: a write on the primary arrives at the standby, and the standby is able to take over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from ops.base import console
from ops.base.environments import Environment
from ops.engine import Container
from ops.parts import postgres
from ops.parts.postgres import managed, ownership
from ops.parts.probes import WRITE_SECONDS, Check, Probe, Seen, Status, judge_owned, output
from ops.stack import owned as labels

TITLE = "PostgreSQL"


def probes(seen: Seen) -> Iterator[Probe]:
    """Ask each running node, and all of them whether a failover would be safe."""
    nodes = seen.running(*postgres.NODES)
    for each in nodes:
        yield Probe("postgres", each.service, partial(_postgres, seen.env, each))
    if nodes:
        yield Probe("postgres", "failover", lambda: [judge_failover(postgres.look(seen.env, seen.containers))])
        yield Probe("postgres", "services", lambda: _owned(seen))
    for each in seen.running(managed.SERVICE):
        yield Probe("postgres", "managed", lambda each=each: _managed(seen, each))  # type: ignore[misc]


def _managed(seen: Seen, client: Container) -> Iterator[Check]:
    return managed.checks(seen.env, labels.declared(seen.declared), client)


def _owned(seen: Seen) -> list[Check]:
    owned = labels.declared(seen.declared)
    if not owned.roles:
        return []
    missing = ownership.missing(seen.env, owned, postgres.primary(seen.env, seen.containers))
    return [judge_owned("postgres", seen.env, owned.claimants(owned.roles), missing.values())]


# The message is written to the log and flushed at commit like any other change, and leaves nothing behind. The loop
# looks until the standby has applied that very change, which no figure about lag can pretend.
_FOLLOWER = "application_name LIKE 'postgres-%'"
_NODE_SQL = f"""
SET statement_timeout = '{WRITE_SECONDS * 2}s';
SELECT pg_is_in_recovery() AS standby \\gset
\\if :standby
SELECT json_build_object(
  'standby', true,
  'receiver', (SELECT status FROM pg_stat_wal_receiver),
  'replayed', extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()));
\\quit
\\endif
-- Without this a missing standby would keep the probe itself waiting.
SET synchronous_commit = local;
SELECT set_config('health.position', pg_logical_emit_message(true, 'health', '')::text, false) \\g /dev/null
SELECT set_config('health.since', clock_timestamp()::text, false) \\g /dev/null
DO $$ BEGIN
  WHILE clock_timestamp() < current_setting('health.since')::timestamptz + interval '{WRITE_SECONDS} s'
    AND EXISTS (SELECT FROM pg_stat_replication WHERE {_FOLLOWER})
    AND NOT EXISTS (SELECT FROM pg_stat_replication
      WHERE {_FOLLOWER} AND replay_lsn >= current_setting('health.position')::pg_lsn)
  LOOP PERFORM pg_sleep(0.005); END LOOP;
END $$;
SELECT json_build_object(
  'standby', false,
  'waited', extract(epoch FROM clock_timestamp() - current_setting('health.since')::timestamptz),
  'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
  'most', current_setting('max_connections')::int,
  'replica', (SELECT json_build_object('state', state, 'sync', sync_state,
      'lag', pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn),
      'applied', replay_lsn >= current_setting('health.position')::pg_lsn)
    FROM pg_stat_replication WHERE {_FOLLOWER} ORDER BY replay_lsn DESC LIMIT 1),
  'slot', (SELECT json_build_object('active', active, 'status', wal_status,
      'behind', pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
    FROM pg_replication_slots WHERE slot_name LIKE 'postgres\\_%' ORDER BY wal_status = 'lost' DESC LIMIT 1));
"""


def _sql(env: Environment, container: Container, text: str) -> dict[str, Any]:
    lines = output(container, *postgres.psql(env), input=text).strip().splitlines()
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _postgres(env: Environment, container: Container) -> list[Check]:
    return judge_postgres(container.service, _sql(env, container, _NODE_SQL))


def judge_postgres(name: str, answer: dict[str, Any]) -> list[Check]:
    """A primary takes writes, and its standby applied one that was made just now; a standby receives."""
    return [_judge_standby(name, answer)] if answer["standby"] else _judge_primary(name, answer)


def _judge_primary(name: str, answer: dict[str, Any]) -> list[Check]:
    connections, most = answer["connections"], answer["most"]
    status: Status = "warn" if connections > 0.85 * most else "ok"
    checks = [Check("postgres", name, status, f"primary, takes writes, {connections} of {most} connections")]
    replica, slot = answer["replica"], answer["slot"]
    held = f", {console.size(slot['behind'])} behind" if slot and slot["behind"] is not None else ""
    if slot and slot["status"] == "lost":
        detail = "the primary no longer has what the standby needs: it needs a new copy, see docs/runbook.md"
        checks.append(Check("postgres", "replication", "fail", detail))
    elif not replica:
        checks.append(Check("postgres", "replication", "fail", f"no standby streams from the primary{held}"))
    elif not replica["applied"]:
        lag = console.size(replica["lag"] or 0)
        detail = f"{replica['state']}, a write did not arrive within {WRITE_SECONDS} s, {lag} behind"
        checks.append(Check("postgres", "replication", "fail", detail))
    else:
        how = "synchronous, " if replica["sync"] in {"sync", "quorum"} else ""
        detail = f"{replica['state']}, {how}a write arrived within {answer['waited'] * 1000:.0f} ms"
        status = "warn" if (replica["lag"] or 0) > postgres.LAG_BYTES else "ok"
        checks.append(Check("postgres", "replication", status, f"{detail}, {console.size(replica['lag'] or 0)} behind"))
    return checks


def _judge_standby(name: str, answer: dict[str, Any]) -> Check:
    """That it is up to date is what the check `replication` proves."""
    replayed = answer["replayed"]
    last = f", last change {console.duration(max(0.0, replayed))} ago" if replayed is not None else ""
    if answer["receiver"] != "streaming":
        return Check("postgres", name, "fail", f"standby, does not receive from the primary{last}")
    return Check("postgres", name, "ok", f"standby, streaming{last}")


def judge_failover(view: postgres.View) -> Check:
    """Whether the standby can take over, by itself or by `invoke failover`."""
    how = "automatic" if view.automatic else "by hand"
    hazard = view.hazard()
    primaries = sum(node.role == postgres.PRIMARY for node in view.nodes)
    if not hazard:
        return Check("postgres", "failover", "ok", f"{how}, safe: {view.pair()[1].name} can take over")
    return Check("postgres", "failover", "warn" if primaries == 1 else "fail", f"{how}, not safe: {hazard}")
