"""Health: what every part of the stack answers right now, asked all at once.

Nothing here trusts what was measured earlier: services are asked through their own readiness probe, a write on the
PostgreSQL primary and on the Redis primary must arrive at the replica, and a request passes nginx from outside. What
Docker thinks of the containers is reported beside that. One process a probe, all of them side by side.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import postgres, rabbitmq, redis
from ops.parts.nginx import maintenance
from ops.secrets import certificates
from ops.stack import model
from ops.stack.model import Service, Stack

Status = Literal["ok", "warn", "fail"]

# A probe that takes longer is an answer by itself. The longest wait inside one is WRITE_SECONDS, twice.
PROBE_SECONDS = 10
# How long a write may take to reach the replica. Milliseconds are usual.
WRITE_SECONDS = 2
# A replica this far behind answers reads with yesterday's truth.
LAG_BYTES = 64 << 20
# Shares of a disk that are still free.
DISK_WARN, DISK_FAIL = 0.15, 0.05
CERTIFICATE_WARN_DAYS = 21
# A container that was restarted longer ago than this has settled.
RESTART_SECONDS = 600

QUEUE_WARN = 1000
UNSERVED = "nobody consumes"
# A quorum queue counts its consumers every 5 s, and the management page collects the counts every 5 s
# (collect_statistics_interval): its word is as old as both, and a loaded machine adds to it.
STATISTICS_SECONDS = 12

# The monitoring services that publish a port on this machine: setting of the port, path.
_PAGES = {
    "prometheus": ("PROMETHEUS_PORT", "/-/ready"),
    "alertmanager": ("ALERTMANAGER_PORT", "/-/ready"),
    "grafana": ("GRAFANA_PORT", "/api/health"),
    "kibana": ("KIBANA_PORT", "/api/status"),
}


@dataclass(frozen=True)
class Check:
    """One answer. `name` is what was asked, `target` whom; `seconds` is how long that took."""

    name: str
    target: str
    status: Status
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """Everything that was asked, and how long all of it took."""

    environment: str
    checks: tuple[Check, ...]
    seconds: float = field(default=0.0)

    @property
    def healthy(self) -> bool:
        """Warnings do not count: the stack serves."""
        return all(check.status != "fail" for check in self.checks)


Probe = Callable[[], Iterable[Check]]


def report(env: Environment) -> Report:
    """Ask everything. Raises OpsError only when Docker itself cannot be asked."""
    began = time.monotonic()
    # Threads only wait here; more of them than probes cost nothing.
    with engine.pool(64) as pool:
        declared = pool.submit(model.load, env)
        early = [pool.submit(_timed, name, target, probe) for name, target, probe in _independent_probes(env)]
        containers = engine.containers(env)
        if not any(container.running for container in containers):
            declared.result()
            return Report(env.name, (_not_running(env, containers),), time.monotonic() - began)
        later = [pool.submit(_timed, name, target, probe) for name, target, probe in _probes(env, containers)]
        checks = [
            *check_containers(declared.result(), containers, time.time()),
            *(check for future in (*later, *early) for check in future.result()),
        ]
    wanted = declared.result().services
    checks = [check for check in checks if check.name != "monitoring" or check.target in wanted]
    order = {name: place for place, name in enumerate(_GROUPS)}
    checks.sort(key=lambda check: (order.get(check.name, len(order)), check.target))
    return Report(env.name, tuple(checks), time.monotonic() - began)


# ── presenting ────────────────────────────────────────────────────────────────────────────────────────────────────────

_GROUPS = {
    "stack": "Stack",
    "container": "Containers",
    "ready": "Services",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "rabbitmq": "RabbitMQ",
    "https": "Edge",
    "certificate": "Edge",
    "maintenance": "Edge",
    "disk": "Host",
    "monitoring": "Monitoring",
}
_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def as_json(result: Report) -> dict[str, Any]:
    """The report for programs. Keys are only ever added."""
    return {
        "environment": result.environment,
        "healthy": result.healthy,
        "seconds": round(result.seconds, 3),
        "checks": [{**asdict(check), "seconds": round(check.seconds, 3)} for check in result.checks],
    }


def show(result: Report) -> None:
    """The report for people."""
    from rich.markup import escape

    if [check.name for check in result.checks] == ["stack"]:
        console.say(result.checks[0].detail, "red")
        return
    rows, previous = [], ""
    for check in result.checks:
        group = _GROUPS.get(check.name, check.name)
        taken = f"[dim]{check.seconds * 1000:.0f} ms[/]" if check.seconds else ""
        title = f"[bold]{group}[/]" if group != previous else ""
        rows.append((title, check.target, _MARKS[check.status], escape(check.detail), taken))
        previous = group
    console.print_table(("", "", "", "", ""), rows)
    counts = {status: sum(check.status == status for check in result.checks) for status in _MARKS}
    words = f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed"
    verdict = "healthy" if result.healthy else "unhealthy"
    console.say(
        f"{result.environment} is {verdict}: {words} ({console.duration(result.seconds)})",
        "green" if result.healthy else "red",
    )


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _timed(name: str, target: str, probe: Probe) -> list[Check]:
    """The checks of a probe with its time; one that raises or finds nothing to ask has failed."""
    began = time.monotonic()
    try:
        checks = list(probe())
    except OpsError as error:
        checks = [Check(name, target, "fail", error.message)]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        checks = [Check(name, target, "fail", f"unexpected answer: {error or type(error).__name__}")]
    seconds = time.monotonic() - began
    return [replace(check, seconds=seconds) for check in checks]


def _independent_probes(env: Environment) -> Iterator[tuple[str, str, Probe]]:
    """Probes that need to know nothing about containers."""
    yield "https", "nginx", lambda: _https(env)
    yield "certificate", env.values.get("DOMAIN", ""), lambda: _certificate(env)
    yield "disk", "project folder", lambda: _disks(env)
    for service, (setting, path) in _PAGES.items():
        if env.flag("MONITORING_ENABLED") and env.values.get(setting):
            yield "monitoring", service, lambda s=service, p=setting, u=path: _page(s, env.number(p, 0), u)


def _probes(env: Environment, containers: list[Container]) -> Iterator[tuple[str, str, Probe]]:
    """Probes inside running containers. Those that do not run are reported by `check_containers`."""
    running: dict[str, list[Container]] = {}
    for each in containers:
        if each.running:
            running.setdefault(each.service, []).append(each)
    for service in ("web", "api", "auth-service", "notification-service"):
        for each in running.get(service, []):
            yield "ready", f"{service}-{each.number}", lambda c=each: _ready(c)
    single: dict[str, tuple[str, Callable[[Container], Iterable[Check]]]] = {
        **dict.fromkeys(postgres.NODES, ("postgres", lambda each: _postgres(env, each))),
        **dict.fromkeys(redis.NODES, ("redis", _redis_node)),
        **dict.fromkeys(redis.SENTINELS, ("redis", _redis_sentinel)),
    }
    for service, (name, probe) in single.items():
        for each in running.get(service, []):
            yield name, service, lambda c=each, p=probe: p(c)
    if any(node in running for node in postgres.NODES):
        yield "postgres", "failover", lambda: [judge_failover(postgres.look(env, containers))]
    if brokers := rabbitmq.running(containers):
        # Any node knows everything.
        nodes = len({each.service for each in containers if each.service in rabbitmq.NODES})
        yield "rabbitmq", brokers[0].service, lambda: _rabbitmq(env, brokers[0], nodes)


def _exec(container: Container, *argv: str, input: str | None = None) -> str:
    """What a command in a container prints; its complaint as OpsError when it fails."""
    done = engine.exec_(container.id, argv, input=input, check=False, timeout=PROBE_SECONDS)
    if not done.ok:
        complaint = (done.stderr or done.stdout).strip().splitlines()
        raise engine.explain(done.stderr) or OpsError(complaint[-1] if complaint else f"exit code {done.code}")
    return done.stdout


# ── containers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _not_running(env: Environment, containers: list[Container]) -> Check:
    state = f"all {len(containers)} containers are stopped" if containers else "there are no containers"
    return Check(
        "stack", env.project, "fail", f"{env.name} is not running: {state}. Start it: invoke deploy --env {env.name}"
    )


def check_containers(declared: Stack, containers: list[Container], now: float) -> Iterator[Check]:
    """Docker's view: every replica that is wanted runs and is healthy. `now` in seconds since the epoch."""
    found: dict[str, list[Container]] = {}
    for each in containers:
        found.setdefault(each.service, []).append(each)
    for service in declared.services.values():
        here = found.pop(service.name, [])
        for each in here:
            yield _check_container(each, service, now)
        # Those that exist and do not run have just said so themselves.
        if not service.one_shot and len(here) < service.replicas:
            count = sum(each.running for each in here)
            yield Check("container", service.name, "fail", f"{count} of {service.replicas} wanted are running")
        elif service.one_shot and not here and service.replicas:
            yield Check("container", service.name, "fail", "never ran")
    for service_name, here in found.items():
        for each in here:
            yield Check("container", f"{service_name}-{each.number}", "warn", "its service is switched off or unknown")


def _check_container(each: Container, service: Service, now: float) -> Check:
    target = f"{each.service}-{each.number}"
    status: Status = "ok"
    if each.running:
        detail = each.health or "running"
        if each.health == "unhealthy":
            status = "fail"
            last = each.health_log[-1].splitlines() if each.health_log and each.health_log[-1] else []
            # Services answer with a whole document; their own readiness is asked anyway.
            detail = f"unhealthy: {last[-1][:80]}" if last else "unhealthy"
        elif each.health == "starting":
            status = "warn"
        if each.restarts:
            ago = now - each.started
            detail += f", restarted {each.restarts} times, last {console.duration(ago)} ago"
            if status == "ok" and ago < RESTART_SECONDS:
                status = "warn"
    elif service.one_shot and each.state == "exited":
        status = "ok" if each.exit_code == 0 else "fail"
        detail = "done" if each.exit_code == 0 else f"failed with exit code {each.exit_code}"
    else:
        status, detail = "fail", f"{each.state}, exit code {each.exit_code}"
        if each.oom_killed:
            detail += ", out of memory"
        if each.error:
            detail += f": {each.error}"
    return Check("container", target, status, detail)


# ── services ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ready(container: Container) -> Iterable[Check]:
    done = engine.exec_(container.id, ["python", "-m", "stack.probe", "ready"], check=False, timeout=PROBE_SECONDS)
    target = f"{container.service}-{container.number}"
    if known := engine.explain(done.stderr):
        raise known
    return [judge_ready(target, done.ok, done.stdout or done.stderr)]


def judge_ready(target: str, ok: bool, answer: str) -> Check:
    """What a service says about itself; without one of its lesser dependencies it is degraded and still serves."""
    try:
        body = json.loads(answer)
        missing = list(body["missing"])
        state = str(body["status"])
    except (ValueError, KeyError, TypeError):
        lines = answer.strip().splitlines()
        return Check("ready", target, "ok" if ok else "fail", lines[-1] if lines else "no answer")
    detail = f"{state}: {', '.join(missing)} missing" if missing else state
    return Check("ready", target, "fail" if not ok else "warn" if missing else "ok", detail)


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────────

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
    answer = _exec(container, *postgres.psql(env), input=text)
    return json.loads(answer.strip().splitlines()[-1])


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
        detail = "the primary no longer has what the standby needs: it must be copied anew, see docs/runbook.md"
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
        status = "warn" if (replica["lag"] or 0) > LAG_BYTES else "ok"
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
        return Check("postgres", "failover", "ok", f"{how}, safe: {view.standby.name} can take over")
    return Check("postgres", "failover", "warn" if primaries == 1 else "fail", f"{how}, not safe: {hazard}")


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

# A line each: the primary's name ("?" when the sentinels do not agree), what became of a write, how many replicas
# confirmed it; then what the node says about itself. On a replica the write is refused.
_REDIS_NODE = f"""
sh {redis.PRIMARY_SCRIPT} || echo '?'
export REDISCLI_AUTH=$(tr -d '\\r' </run/secrets/REDIS_PASSWORD)
redis-cli --no-auth-warning <<'END' || true
SET health:probe 1 EX 10
WAIT 1 {WRITE_SECONDS * 1000}
INFO replication
END
"""

_SENTINEL = """
export REDISCLI_AUTH=$(tr -d '\\r' </run/secrets/REDIS_PASSWORD)
cat /data/patience
redis-cli -p 26379 --no-auth-warning sentinel ckquorum stack
redis-cli -p 26379 --no-auth-warning sentinel master stack
"""


def _redis_node(container: Container) -> list[Check]:
    return judge_redis_node(container.service, _exec(container, "sh", "-c", _REDIS_NODE))


def judge_redis_node(node: str, answer: str) -> list[Check]:
    """The node has the role it should have, and fills it: a replica confirmed a write just now, or its link is up."""
    named, *said = (line for line in answer.replace("\r", "").splitlines() if line)
    if len(said) < 3:
        who = "the sentinels do not agree on" if named == "?" else f"{named} is"
        return [Check("redis", node, "fail", f"does not answer; {who} the primary")]
    written, confirmed, *rest = said
    state = redis.parse_info(rest)
    if state.get("role") == "slave" and named != node:
        return [_redis_replica(node, state)]
    if state.get("role") != "master":
        words = f"its role is {state.get('role', 'unknown')}, though it should be the primary: nothing can be written"
        return [Check("redis", node, "fail", words)]
    if named != node:
        who = "the sentinels do not agree on one" if named == "?" else f"{named} is it"
        return [Check("redis", node, "fail", f"takes itself for the primary, but {who}")]
    if written != "OK":
        return [Check("redis", node, "fail", f"primary, refuses writes: {written}")]
    return [Check("redis", node, "ok", "primary, takes writes"), _redis_replication(int(confirmed), state)]


def _redis_replication(confirmed: int, state: dict[str, str]) -> Check:
    if confirmed < 1:
        replicas = int(state.get("connected_slaves", 0))
        words = f"a write was not confirmed within {WRITE_SECONDS} s" if replicas else "no replica is connected"
        return Check("redis", "replication", "fail", words)
    behind = int(state["master_repl_offset"]) - max(
        int(dict(part.split("=", 1) for part in value.split(","))["offset"])
        for key, value in state.items()
        if key.startswith("slave") and key[5:].isdigit()
    )
    return Check("redis", "replication", "ok", f"a write was confirmed, {console.size(max(0, behind))} behind")


def _redis_replica(node: str, state: dict[str, str]) -> Check:
    if not redis.follows(state):
        since = console.duration(max(0, int(state.get("master_link_down_since_seconds", 0))))
        return Check("redis", node, "fail", f"replica, its link to the primary is down since {since}")
    silent = int(state.get("master_last_io_seconds_ago", 0))
    return Check("redis", node, "ok", f"replica, link up, heard from the primary {silent} s ago")


def _redis_sentinel(container: Container) -> list[Check]:
    return [judge_redis_sentinel(container.service, _exec(container, "sh", "-c", _SENTINEL))]


def judge_redis_sentinel(name: str, answer: str) -> Check:
    """The sentinel sees enough others for a failover, and may start one.

    answer: how long silence should last, the verdict about the quorum, then names and values of what it knows about the
    primary, a line each.
    """
    patience, quorum, *rest = (line for line in answer.replace("\r", "").splitlines() if line)
    known = dict(zip(rest[::2], rest[1::2], strict=False))
    if not quorum.startswith("OK"):
        return Check("redis", name, "fail", f"no failover is possible: {quorum}")
    says = f"{known.get('ip', 'nobody')} is primary"
    if "down" in known.get("flags", ""):
        return Check("redis", name, "fail", f"{says}, and does not answer")
    if known.get("num-slaves") == "0":
        return Check("redis", name, "fail", f"{says}; no failover is possible: it knows no replica")
    if known.get("down-after-milliseconds") != patience:
        return Check("redis", name, "warn", f"{says}; failover is suspended by a restore, or one that was killed")
    usable = quorum.split()[1]
    return Check(
        "redis", name, "ok" if int(usable) >= len(redis.SENTINELS) else "warn", f"{says}, {usable} agree on it"
    )


# ── RabbitMQ ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# Queues, nodes, then alarms, which Prometheus reads at the same place, without a login. No Erlang machine has to start.
_RABBITMQ = """
set -euo pipefail
bash /etc/rabbitmq/api.sh GET '/api/queues?columns=name,state,messages,consumers,members,online' </dev/null
bash /etc/rabbitmq/api.sh GET '/api/nodes?columns=name,running' </dev/null
exec 3<>/dev/tcp/127.0.0.1/15692
printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3
grep ^rabbitmq_alarms_ <&3
"""


def _rabbitmq(env: Environment, container: Container, nodes: int) -> list[Check]:
    definitions = env.project_dir / "infrastructure/rabbitmq/definitions.json"

    def look() -> list[Check]:
        answer = _exec(container, "bash", "-c", _RABBITMQ)
        wanted = [queue["name"] for queue in json.loads(definitions.read_text(encoding="utf-8")).get("queues", [])]
        return judge_rabbitmq(answer, wanted, nodes)

    def complete(checks: list[Check]) -> bool:
        """A consumer that has just come is not counted yet: look again before saying that there is none."""
        return not any(UNSERVED in check.detail for check in checks)

    return until(look, STATISTICS_SECONDS, 1, accept=complete)


def judge_rabbitmq(answer: str, wanted: list[str], nodes: int = 1) -> list[Check]:
    """No alarm, enough nodes, and every queue there, served, and with enough copies.

    answer: the queues, then the nodes that know each other, as JSON in a line each; then the alarm metrics.
    nodes: how many there should be.
    """
    first, second, *metrics = answer.strip().splitlines()
    queues = {queue["name"]: queue for queue in json.loads(first)}
    up = sum(bool(node.get("running")) for node in json.loads(second))
    alarms = [
        line.split()[0].split("{")[0].removeprefix("rabbitmq_alarms_").replace("_", " ")
        for line in metrics
        if float(line.split()[-1]) > 0
    ]
    checks = [_broker(alarms, up, nodes)]
    for name in wanted:
        if name not in queues:
            checks.append(Check("rabbitmq", name, "fail", "the queue is missing: restart rabbitmq to import it again"))
    checks.extend(_copies(_queue(queue), queue, nodes) for queue in queues.values())
    return checks


def _broker(alarms: list[str], up: int, nodes: int) -> Check:
    if alarms:
        return Check("rabbitmq", "rabbitmq", "fail", f"publishers are blocked, alarm: {', '.join(alarms)}")
    if nodes == 1:
        return Check("rabbitmq", "rabbitmq", "ok", "no alarms")
    status: Status = "ok" if up >= nodes else "warn" if 2 * up > nodes else "fail"
    return Check("rabbitmq", "rabbitmq", status, f"no alarms, {up} of {nodes} nodes run")


def _copies(check: Check, queue: dict[str, Any], nodes: int) -> Check:
    """The check of a queue with what its copies add to it: a queue takes messages while most of them are online."""
    online, members = len(queue.get("online", ())), len(queue.get("members", ()))
    if nodes == 1:
        return check
    detail = f"{check.detail}, {online} of {nodes} copies"
    if 2 * online <= members:
        return replace(check, status="fail", detail=f"{detail}: too few to take messages")
    return replace(check, status="warn" if check.status == "ok" and online < nodes else check.status, detail=detail)


def _queue(queue: dict[str, Any]) -> Check:
    name = queue["name"]
    messages, consumers = queue.get("messages", 0), queue.get("consumers", 0)
    detail = f"{messages} messages, {consumers} consumers"
    status: Status = "ok"
    if queue.get("state", "running") != "running":
        status, detail = "fail", f"{queue['state']}, {detail}"
    elif name.endswith(".dead"):
        if messages:
            status, detail = "warn", f"{messages} messages that could not be processed"
    elif ".retry." in name:
        # Nobody consumes from it: messages leave by themselves.
        detail = f"{messages} messages waiting"
    elif not consumers:
        status, detail = ("fail" if messages else "warn"), f"{UNSERVED}, {messages} messages"
    elif messages > QUEUE_WARN:
        status = "warn"
    return Check("rabbitmq", name, status, detail)


# ── edge ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _https(env: Environment) -> list[Check]:
    domain, port = env.values["DOMAIN"], env.number("SSL_PORT", 443)
    bound = env.values.get("BIND_ADDRESS", "")
    address = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(bound, bound.strip("[]"))
    context = ssl.create_default_context()
    authority = certificates.authority_of(env)
    if authority.is_file():
        context.load_verify_locations(authority)
    try:
        with (
            socket.create_connection((address, port), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=domain) as secured,
        ):
            secured.sendall(f"GET /health HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(secured)
            response.begin()
            version, status = secured.version(), response.status
    except ssl.SSLCertVerificationError as error:
        return [Check("https", "nginx", "fail", f"its certificate is not accepted: {error.verify_message}")]
    except OSError as error:
        return [Check("https", "nginx", "fail", f"no answer on {address}:{port}: {error.strerror or error}")]
    checks = [Check("https", "nginx", "ok" if status == 200 else "fail", f"/health answers {status}, {version}")]
    if began := maintenance.since(env):
        checks.append(Check("maintenance", "nginx", "warn", f"{maintenance.describe(began)}: visitors are turned away"))
    return checks


def _certificate(env: Environment) -> list[Check]:
    found = certificates.validate(env)
    days = found.days_left
    detail = f"{days} days left, {'from the local authority' if found.local else 'from a public authority'}"
    if env.name == "prod" and found.local:
        return [Check("certificate", env.values["DOMAIN"], "warn", f"{detail}: browsers do not accept it")]
    return [Check("certificate", env.values["DOMAIN"], "warn" if days < CERTIFICATE_WARN_DAYS else "ok", detail)]


# ── host ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _disks(env: Environment) -> Iterator[Check]:
    places = {
        "project folder": env.project_dir,
        "docker": Path(env.values.get("DOCKER_DATA_ROOT") or "/var/lib/docker"),
    }
    seen: set[int] = set()
    for name, path in places.items():
        # With an engine elsewhere its folder is not here to be measured; one disk is measured once.
        if path.is_dir() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            yield judge_disk(name, *shutil.disk_usage(path)[::2])


def judge_disk(name: str, total: int, free: int) -> Check:
    """Whether the disk at `name` has room; bytes."""
    share = free / total
    status: Status = "fail" if share < DISK_FAIL else "warn" if share < DISK_WARN else "ok"
    return Check("disk", name, status, f"{console.size(free)} free of {console.size(total)} ({share:.0%})")


# ── monitoring ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _page(service: str, port: int, path: str) -> list[Check]:
    try:
        status, _ = _get(port, path)
    except (OSError, http.client.HTTPException) as error:
        return [Check("monitoring", service, "fail", f"no answer on 127.0.0.1:{port}: {error}")]
    if status != 200:
        return [Check("monitoring", service, "fail", f"{path} answers {status}")]
    if service != "prometheus":
        return [Check("monitoring", service, "ok", "ready")]
    return [judge_alerts(json.loads(_get(port, "/api/v1/alerts")[1]))]


def judge_alerts(answer: dict[str, Any]) -> Check:
    """Prometheus is ready; alerts that fire are worth a look. Watchdog always fires."""
    firing = {
        alert["labels"]["alertname"]
        for alert in answer["data"]["alerts"]
        if alert["state"] == "firing" and alert["labels"]["alertname"] != "Watchdog"
    }
    if firing:
        return Check("monitoring", "prometheus", "warn", f"alerts: {', '.join(sorted(firing))}")
    return Check("monitoring", "prometheus", "ok", "ready, no alerts")
