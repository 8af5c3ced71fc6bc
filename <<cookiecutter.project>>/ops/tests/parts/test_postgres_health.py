"""What the answers of PostgreSQL mean for its health."""

import pytest

from ops.parts import postgres
from ops.parts.postgres import health


def statuses(checks):
    return {check.target: check.status for check in checks}


PRIMARY = {
    "standby": False,
    "waited": 0.004,
    "connections": 12,
    "most": 100,
    "replica": {"state": "streaming", "sync": "sync", "lag": 0, "applied": True},
    "slot": {"active": True, "status": "reserved", "behind": 0},
}


def primary(**changes):
    return statuses(health.judge_postgres("postgres-primary", {**PRIMARY, **changes}))


def test_a_primary_with_a_standby_that_follows():
    assert primary() == {"postgres-primary": "ok", "replication": "ok"}


def test_roles_are_those_of_the_answers_not_of_the_names():
    (check, _) = health.judge_postgres("postgres-replica", PRIMARY)
    assert (check.target, check.status) == ("postgres-replica", "ok") and check.detail.startswith(
        "primary, takes writes"
    )
    (check,) = health.judge_postgres("postgres-primary", {"standby": True, "receiver": "streaming", "replayed": None})
    assert (check.target, check.status, check.detail) == ("postgres-primary", "ok", "standby, streaming")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"connections": 90}, {"postgres-primary": "warn", "replication": "ok"}),
        ({"replica": None}, {"postgres-primary": "ok", "replication": "fail"}),
        (
            {"slot": {"active": False, "status": "lost", "behind": None}},
            {"postgres-primary": "ok", "replication": "fail"},
        ),
        ({"slot": None}, {"postgres-primary": "ok", "replication": "ok"}),
        (
            {"replica": {"state": "streaming", "sync": "async", "lag": 1 << 30, "applied": True}},
            {"postgres-primary": "ok", "replication": "warn"},
        ),
    ],
)
def test_a_primary_in_trouble(changes, expected):
    assert primary(**changes) == expected


def test_a_lag_of_zero_does_not_hide_a_write_that_never_arrived():
    replica = {"state": "streaming", "sync": "sync", "lag": 0, "applied": False}
    assert primary(replica=replica)["replication"] == "fail"


def test_a_broken_replication_says_how_far_behind():
    slot = {"active": False, "status": "extended", "behind": 6_920_000}
    checks = health.judge_postgres("postgres-primary", {**PRIMARY, "replica": None, "slot": slot})
    assert checks[1].detail == "no standby streams from the primary, 6.6 MiB behind"


@pytest.mark.parametrize(("receiver", "status"), [("streaming", "ok"), (None, "fail")])
def test_a_standby(receiver, status):
    (check,) = health.judge_postgres("postgres-replica", {"standby": True, "receiver": receiver, "replayed": None})
    assert check.status == status


@pytest.mark.parametrize(
    ("automatic", "follower", "status", "words"),
    [
        (
            True,
            {"state": "streaming", "sync": "sync", "lag": 0},
            "ok",
            "automatic, safe: postgres-replica can take over",
        ),
        (
            True,
            {"state": "streaming", "sync": "async", "lag": 0},
            "warn",
            "automatic, not safe: postgres-replica is not",
        ),
        (False, {"state": "streaming", "sync": "async", "lag": 0}, "ok", "by hand, safe"),
        (False, {"state": "catchup", "sync": "async", "lag": 0}, "warn", "by hand, not safe"),
    ],
)
def test_whether_it_is_safe_to_fail_over(make_container, automatic, follower, status, words):
    labels = {"ops.stateful": "postgres"} if automatic else {}
    nodes = (
        postgres.Node(
            make_container("postgres-primary", labels=labels),
            postgres.PRIMARY,
            followers={"postgres-replica": follower},
        ),
        postgres.Node(make_container("postgres-replica", labels=labels), postgres.STANDBY, receiving=True),
    )
    members = [{"name": "postgres-primary", "role": "leader"}, {"name": "postgres-replica", "role": "sync_standby"}]
    check = health.judge_failover(postgres.View(nodes, {"members": members}))
    assert check.status == status and words in check.detail
