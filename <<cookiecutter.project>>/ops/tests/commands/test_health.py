"""What the answers of the stack mean for its health."""

import json
import threading

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.commands import health
from ops.commands.health import Check, Report
from ops.parts import postgres
from ops.secrets import certificates
from ops.stack import model
from ops.stack.model import Service


def statuses(checks):
    return {check.target: check.status for check in checks}


# ── containers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def containers(make_stack, services, found, now=100_000.0):
    return list(health.check_containers(make_stack(*services), found, now))


def test_everything_that_is_wanted_runs(make_stack, make_container):
    found = [make_container("web", 1), make_container("web", 2), make_container("db", health="")]
    checks = containers(make_stack, [Service("web", "", replicas=2), Service("db", "")], found)
    assert statuses(checks) == {"web-1": "ok", "web-2": "ok", "db-1": "ok"}


def test_what_is_wanted_and_absent_fails(make_stack, make_container):
    checks = containers(make_stack, [Service("web", "", replicas=2), Service("db", "")], [make_container("web")])
    assert statuses(checks) == {"web-1": "ok", "web": "fail", "db": "fail"}
    assert [check.detail for check in checks if check.status == "fail"] == [
        "1 of 2 wanted are running",
        "0 of 1 wanted are running",
    ]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"health": "unhealthy", "health_log": ("first", "no connection")}, "fail", "unhealthy: no connection"),
        ({"health": "unhealthy"}, "fail", "unhealthy"),
        ({"health": "starting"}, "warn", "starting"),
        ({"state": "paused"}, "fail", "paused"),
        ({"state": "exited", "exit_code": 137, "oom_killed": True}, "fail", "exited, exit code 137, out of memory"),
        ({"state": "created", "error": "port taken"}, "fail", "port taken"),
        ({"restarts": 3, "started": 99_990.0}, "warn", "restarted 3 times, last 10 s ago"),
        ({"restarts": 3, "started": 10.0}, "ok", "restarted 3 times"),
    ],
)
def test_a_container_in_trouble(make_stack, make_container, changes, status, words):
    (check,) = containers(make_stack, [Service("web", "")], [make_container("web", **changes)])
    assert check.status == status
    assert words in check.detail


def test_one_shot_services(make_stack, make_container):
    migrate = Service("migrate", "", one_shot=True)
    assert statuses(containers(make_stack, [migrate], [])) == {"migrate": "fail"}
    done = make_container("migrate", state="exited", health="")
    assert statuses(containers(make_stack, [migrate], [done])) == {"migrate-1": "ok"}
    failed = make_container("migrate", state="exited", health="", exit_code=1)
    assert statuses(containers(make_stack, [migrate], [failed])) == {"migrate-1": "fail"}


def test_containers_nobody_wants(make_stack, make_container):
    assert statuses(containers(make_stack, [], [make_container("grafana")])) == {"grafana-1": "warn"}


# ── services ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ok", "answer", "status", "detail"),
    [
        (True, '{"status": "ready", "missing": []}', "ok", "ready"),
        (True, '{"status": "degraded", "missing": ["redis"]}', "warn", "degraded: redis missing"),
        (False, '{"status": "unready", "missing": ["postgres", "redis"]}', "fail", "unready: postgres, redis missing"),
        (False, '{"status": "draining", "missing": []}', "fail", "draining"),
        (False, "Traceback\nno answer on port 8000\n", "fail", "no answer on port 8000"),
        (False, "", "fail", "no answer"),
    ],
)
def test_readiness(ok, answer, status, detail):
    check = health.judge_ready("api-1", ok, answer)
    assert (check.status, check.detail) == (status, detail)


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────────

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


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

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


# ── RabbitMQ ──────────────────────────────────────────────────────────────────────────────────────────────────────────

QUEUES = [
    {"name": "notification.events", "state": "running", "messages": 2, "consumers": 1},
    {"name": "notification.retry.5s", "state": "running", "messages": 3, "consumers": 0},
    {"name": "notification.dead", "state": "running", "messages": 0, "consumers": 0},
]
WANTED = [queue["name"] for queue in QUEUES]
NODES = [{"name": name, "running": True} for name in ("rabbit@rabbitmq", "rabbit@rabbitmq-2", "rabbit@rabbitmq-3")]
NO_ALARM = "rabbitmq_alarms_memory_used_watermark 0\nrabbitmq_alarms_free_disk_space_watermark 0\n"


def rabbitmq(alarms=NO_ALARM, **changes):
    queues = [{**queue, **changes.get(queue["name"].rpartition(".")[2], {})} for queue in QUEUES]
    return statuses(health.judge_rabbitmq(f"{json.dumps(queues)}\n{json.dumps(NODES[:1])}\n{alarms}", WANTED))


def cluster(up=3, members=3, online=3):
    """The statuses of a cluster of three and of its busiest queue."""
    copies = {"members": ["a", "b", "c"][:members], "online": ["a", "b", "c"][:online]}
    nodes = [{**node, "running": place < up} for place, node in enumerate(NODES)]
    answer = f"{json.dumps([{**QUEUES[0], **copies}])}\n{json.dumps(nodes)}\n{NO_ALARM}"
    found = statuses(health.judge_rabbitmq(answer, [], nodes=3))
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
        ({"events": {"name": "renamed"}}, "notification.events", "fail"),
    ],
)
def test_rabbitmq_in_trouble(changes, target, status):
    assert rabbitmq(**changes)[target] == status


# ── host and monitoring ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("free", "status"), [(50, "ok"), (10, "warn"), (3, "fail")])
def test_disks(free, status):
    assert health.judge_disk("docker", 100, free).status == status


def test_alerts_that_fire():
    alerts = [
        {"state": "firing", "labels": {"alertname": "Watchdog"}},
        {"state": "pending", "labels": {"alertname": "DiskAlmostFull"}},
    ]
    assert health.judge_alerts({"data": {"alerts": alerts}}).status == "ok"
    alerts.append({"state": "firing", "labels": {"alertname": "InstanceDown"}})
    assert health.judge_alerts({"data": {"alerts": alerts}}).detail == "alerts: InstanceDown"


# ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quiet(monkeypatch):
    """Nothing outside Docker is asked."""
    monkeypatch.setattr(health, "_https", lambda _env: [Check("https", "nginx", "ok", "200")])
    monkeypatch.setattr(health, "_certificate", lambda _env: [])


def test_a_stopped_stack_is_one_sentence(env, quiet, monkeypatch, make_stack, make_container, capsys):
    monkeypatch.setattr(model, "load", lambda _env: make_stack(Service("web", "")))
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("web", state="exited")])
    result = health.report(env)
    assert not result.healthy
    health.show(result)
    sentence = "dev is not running: all 1 containers are stopped. Start it: invoke deploy --env dev\n"
    assert capsys.readouterr().out == sentence


def test_everything_is_asked_at_once(env, quiet, monkeypatch, make_stack, make_container):
    services = ["web", "api", "auth-service", "notification-service", "postgres-replica", "redis-primary", "rabbitmq"]

    asked, everybody = set(), threading.Event()

    def answer(container, *_args, **_options):
        asked.add(container)
        if len(asked) == len(services):
            everybody.set()
        assert everybody.wait(30), "nobody else was asked meanwhile"
        raise OpsError("no answer")

    monkeypatch.setattr(model, "load", lambda _env: make_stack(*(Service(name, "") for name in services)))
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container(name) for name in services])
    monkeypatch.setattr(engine, "exec_", answer)
    result = health.report(env)
    probes = [check for check in result.checks if check.detail == "no answer"]
    assert len(probes) == len(services)
    assert all(check.status == "fail" for check in probes)


def test_a_probe_with_an_unexpected_answer_fails_alone(env, quiet, monkeypatch, make_stack, make_container):
    monkeypatch.setattr(model, "load", lambda _env: make_stack(Service("postgres-primary", "")))
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("postgres-primary")])
    monkeypatch.setattr(engine, "exec_", lambda *_a, **_o: engine.Completed((), 0, "NOTICE: what?\n", ""))
    result = health.report(env)
    failed = [check for check in result.checks if check.status == "fail"]
    assert [(check.name, check.target) for check in failed] == [
        ("postgres", "failover"),
        ("postgres", "postgres-primary"),
    ]
    assert failed[1].detail.startswith("unexpected answer")


def test_a_self_made_certificate_in_prod_is_worth_a_look(project, monkeypatch):
    from ops.base import environments

    prod = environments.load("prod", project)
    assert health._timed("certificate", "x", lambda: health._certificate(prod))[0].status == "fail"
    certificates.self_sign(prod)
    prod.secrets_dir.chmod(0o700)
    assert health._certificate(prod)[0].status == "warn"


def test_the_json_form_is_stable():
    result = Report("dev", (Check("disk", "docker", "warn", "10 %", 0.01234),), 0.5)
    assert health.as_json(result) == {
        "environment": "dev",
        "healthy": True,
        "seconds": 0.5,
        "checks": [{"name": "disk", "target": "docker", "status": "warn", "detail": "10 %", "seconds": 0.012}],
    }


def test_the_table_groups_and_counts(capsys):
    checks = (
        Check("container", "web-1", "ok", "healthy"),
        Check("ready", "web-1", "fail", "unready: [red]api[/] missing", 0.1),
    )
    health.show(Report("dev", checks, 0.3))
    output = capsys.readouterr().out
    assert "Containers" in output and "Services" in output
    assert "unready: [red]api[/] missing" in output
    assert output.splitlines()[-1] == "dev is unhealthy: 1 ok, 0 to look at, 1 failed (0.3 s)"
