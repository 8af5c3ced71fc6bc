"""The health of RabbitMQ: no alarm, what the services own is there, and every queue is served, with enough copies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ops.base.waiting import until
from ops.engine import Container
from ops.parts import rabbitmq
from ops.parts.probes import Check, Probe, Seen, Status, judge_owned, output
from ops.parts.rabbitmq import ownership
from ops.stack import owned as labels

TITLE = "RabbitMQ"

QUEUE_WARN = 1000
UNSERVED = "nobody consumes"
# A quorum queue counts its consumers every 5 s, and the management page collects the counts every 5 s
# (collect_statistics_interval): its word is as old as both, and a loaded machine adds to it.
STATISTICS_SECONDS = 12


def probes(seen: Seen) -> Iterator[Probe]:
    """Ask one running node: any of them knows everything."""
    if brokers := rabbitmq.running(seen.containers):
        nodes = len({each.service for each in seen.containers if each.service in rabbitmq.NODES})
        yield Probe("rabbitmq", brokers[0].service, lambda: _rabbitmq(brokers[0], nodes))
        yield Probe("rabbitmq", "services", lambda: _owned(seen, brokers[0]))


# Queues, nodes, then alarms, which Prometheus reads at the same place, without a login. No Erlang machine has to start.
_RABBITMQ = """
set -euo pipefail
bash /etc/rabbitmq/api.sh GET '/api/queues?columns=name,state,messages,consumers,members,online' </dev/null
bash /etc/rabbitmq/api.sh GET '/api/nodes?columns=name,running' </dev/null
exec 3<>/dev/tcp/127.0.0.1/15692
printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3
grep ^rabbitmq_alarms_ <&3
"""


def _owned(seen: Seen, broker: Container) -> list[Check]:
    owned = labels.declared(seen.declared)
    if not owned.users:
        return []
    missing = ownership.missing(seen.env, owned, broker)
    return [judge_owned("rabbitmq", seen.env, owned.claimants(owned.users), missing.values())]


def _rabbitmq(container: Container, nodes: int) -> list[Check]:
    def look() -> list[Check]:
        return judge_rabbitmq(output(container, "bash", "-c", _RABBITMQ), nodes)

    def complete(checks: list[Check]) -> bool:
        """A consumer that has just come is not counted yet: look again before saying that there is none."""
        return not any(UNSERVED in check.detail for check in checks)

    return until(look, STATISTICS_SECONDS, 1, accept=complete)


def judge_rabbitmq(answer: str, nodes: int = 1) -> list[Check]:
    """No alarm, enough nodes, and every queue served, and with enough copies.

    answer: the queues, then the nodes that know each other, as JSON in a line each; then the alarm metrics.
    nodes: how many there should be.
    """
    first, second, *metrics = answer.strip().splitlines()
    up = sum(bool(node.get("running")) for node in json.loads(second))
    alarms = [
        line.split()[0].split("{")[0].removeprefix("rabbitmq_alarms_").replace("_", " ")
        for line in metrics
        if float(line.split()[-1]) > 0
    ]
    return [_broker(alarms, up, nodes), *(_copies(_queue(queue), queue, nodes) for queue in json.loads(first))]


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
