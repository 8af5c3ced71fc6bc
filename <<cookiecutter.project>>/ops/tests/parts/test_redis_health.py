"""What the answers of Redis and its sentinels mean for its health."""

import pytest

from ops.parts.redis import health


def statuses(checks):
    return {check.target: check.status for check in checks}


REDIS_PRIMARY = """redis-primary
OK
1
# Replication
role:master
connected_slaves:1
slave0:ip=redis-replica,port=6379,state=online,offset=4096,lag=0
master_repl_offset:4133
"""
REDIS_REPLICA = """redis-primary
READONLY You can't write against a read only replica.

ERR WAIT cannot be used with replica instances.

# Replication
role:slave
master_link_status:up
master_last_io_seconds_ago:1
"""


def test_redis_primary():
    checks = health.judge_redis_node("redis-primary", REDIS_PRIMARY.replace("\n", "\r\n"))
    assert statuses(checks) == {"redis-primary": "ok", "replication": "ok"}
    assert checks[1].detail == "a write was confirmed, 37 B behind"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("\n1\n", "\n0\n"), {"redis-primary": "ok", "replication": "fail"}),
        (("role:master", "role:slave"), {"redis-primary": "fail"}),
        (("OK\n", "MISCONF errors writing to the AOF file\n"), {"redis-primary": "fail"}),
        (("redis-primary\n", "redis-replica\n"), {"redis-primary": "fail"}),
        (("redis-primary\n", "?\n"), {"redis-primary": "fail"}),
    ],
)
def test_redis_primary_in_trouble(change, expected):
    assert statuses(health.judge_redis_node("redis-primary", REDIS_PRIMARY.replace(*change))) == expected


def test_redis_primary_that_lost_its_replica():
    checks = health.judge_redis_node("redis-primary", "redis-primary\nOK\n0\nrole:master\nconnected_slaves:0\n")
    assert checks[1].detail == "no replica is connected"


@pytest.mark.parametrize(
    ("answer", "words"),
    [("redis-primary\n", "does not answer; redis-primary is the primary"), ("?\n", "do not agree on the primary")],
)
def test_a_redis_that_does_not_answer(answer, words):
    (check,) = health.judge_redis_node("redis-replica", answer)
    assert (check.status, words in check.detail) == ("fail", True), check.detail


def test_redis_roles_after_a_failover():
    swapped = REDIS_PRIMARY.replace("redis-primary\n", "redis-replica\n", 1)
    assert statuses(health.judge_redis_node("redis-replica", swapped)) == {"redis-replica": "ok", "replication": "ok"}
    (follower,) = health.judge_redis_node("redis-primary", REDIS_REPLICA.replace("redis-primary", "redis-replica"))
    assert (follower.status, follower.detail[:16]) == ("ok", "replica, link up")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("", ""), "ok"),
        (("status:up", "status:down\nmaster_link_down_since_seconds:75"), "fail"),
        (("status:up", "status:down\nmaster_link_down_since_seconds:-1"), "fail"),
        (("role:slave", "role:master"), "fail"),
        (("redis-primary\n", "redis-replica\n"), "fail"),
    ],
)
def test_redis_replica(change, status):
    (check,) = health.judge_redis_node("redis-replica", REDIS_REPLICA.replace(*change))
    assert check.status == status


SENTINEL = """3000
OK 3 usable Sentinels. Quorum and failover authorization can be reached
name
stack
ip
redis-replica
flags
master
down-after-milliseconds
3000
num-slaves
1
"""


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (("", ""), "ok", "redis-replica is primary, 3 agree on it"),
        (("OK 3", "OK 2"), "warn", "2 agree"),
        (("OK 3 usable", "NOQUORUM 1 usable"), "fail", "no failover is possible"),
        (("\nmaster\n", "\nmaster,s_down\n"), "fail", "does not answer"),
        (("milliseconds\n3000", "milliseconds\n600000"), "warn", "suspended"),
        (("num-slaves\n1", "num-slaves\n0"), "fail", "it knows no replica"),
    ],
)
def test_redis_sentinel(change, status, words):
    check = health.judge_redis_sentinel("redis-sentinel-1", SENTINEL.replace(*change))
    assert (check.status, words in check.detail) == (status, True), check.detail
