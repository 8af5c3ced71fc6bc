"""What the answers of RabbitMQ mean for its health."""

import json

import pytest

from ops.parts.probes import judge_owned
from ops.parts.rabbitmq import health


def statuses(checks):
    return {check.target: check.status for check in checks}


QUEUES = [
    {"name": "notification.events", "state": "running", "messages": 2, "consumers": 1},
    {"name": "notification.retry.5s", "state": "running", "messages": 3, "consumers": 0},
    {"name": "notification.dead", "state": "running", "messages": 0, "consumers": 0},
]
NODES = [{"name": name, "running": True} for name in ("rabbit@rabbitmq", "rabbit@rabbitmq-2", "rabbit@rabbitmq-3")]
NO_ALARM = "rabbitmq_alarms_memory_used_watermark 0\nrabbitmq_alarms_free_disk_space_watermark 0\n"


def rabbitmq(alarms=NO_ALARM, **changes):
    queues = [{**queue, **changes.get(queue["name"].rpartition(".")[2], {})} for queue in QUEUES]
    return statuses(health.judge_rabbitmq(f"{json.dumps(queues)}\n{json.dumps(NODES[:1])}\n{alarms}"))


def cluster(up=3, members=3, online=3):
    """The statuses of a cluster of three and of its busiest queue."""
    copies = {"members": ["a", "b", "c"][:members], "online": ["a", "b", "c"][:online]}
    nodes = [{**node, "running": place < up} for place, node in enumerate(NODES)]
    answer = f"{json.dumps([{**QUEUES[0], **copies}])}\n{json.dumps(nodes)}\n{NO_ALARM}"
    found = statuses(health.judge_rabbitmq(answer, nodes=3))
    return found["rabbitmq"], found["notification.events"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, ("ok", "ok")),
        ({"up": 2, "online": 2}, ("warn", "warn")),
        ({"up": 1, "online": 1}, ("fail", "fail")),
        # made when there was one node, and not spread yet
        ({"members": 1, "online": 1}, ("ok", "warn")),
    ],
)
def test_rabbitmq_as_a_cluster(state, expected):
    assert cluster(**state) == expected


def test_rabbitmq_at_work():
    assert set(rabbitmq().values()) == {"ok"}


@pytest.mark.parametrize(
    ("changes", "target", "status"),
    [
        ({"events": {"consumers": 0}}, "notification.events", "fail"),
        ({"events": {"consumers": 0, "messages": 0}}, "notification.events", "warn"),
        ({"events": {"messages": 5000}}, "notification.events", "warn"),
        ({"events": {"state": "down"}}, "notification.events", "fail"),
        ({"dead": {"messages": 1}}, "notification.dead", "warn"),
        ({"alarms": NO_ALARM.replace("disk_space_watermark 0", "disk_space_watermark 1")}, "rabbitmq", "fail"),
    ],
)
def test_rabbitmq_in_trouble(changes, target, status):
    assert rabbitmq(**changes)[target] == status


@pytest.mark.parametrize(
    ("missing", "status", "detail"),
    [
        ([], "ok", "as the services api, shop declare it"),
        ([("RabbitMQ has no queue a",)], "fail", "RabbitMQ has no queue a: invoke deploy --env dev"),
        ([("one", "two"), ("three",)], "fail", "one and 2 more: invoke deploy --env dev"),
    ],
)
def test_what_services_own(env, missing, status, detail):
    check = judge_owned("rabbitmq", env, ["api", "shop"], missing)
    assert (check.target, check.status, check.detail) == ("services", status, detail)
