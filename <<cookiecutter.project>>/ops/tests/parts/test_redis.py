"""Who is the primary of Redis is asked, never taken from a name."""

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.parts import redis


@pytest.fixture
def pair(make_container):
    """Both nodes and a service."""
    return [make_container(name) for name in ("redis-primary", "redis-replica", "web")]


@pytest.fixture
def answers(monkeypatch):
    """Let every command in a container print something; what was asked of whom is noted."""
    asked = []

    def answer(stdout="", stderr="", code=0):
        def exec_(container, argv, **_options):
            asked.append((container, argv))
            return engine.Completed(tuple(argv), code, stdout, stderr)

        monkeypatch.setattr(engine, "exec_", exec_)
        return asked

    return answer


def test_no_password_is_on_a_command_line():
    assert redis.argv("DBSIZE")[-1] == "DBSIZE"
    assert "REDISCLI_AUTH=$(tr -d '\\r' </run/secrets/REDIS_PASSWORD)" in redis.argv("DBSIZE")[2]


@pytest.mark.parametrize("name", redis.NODES)
def test_the_primary_is_who_is_said_to_be(env, pair, answers, name):
    answers(f"{name}\n")
    assert redis.primary(env, pair).service == name


def test_any_node_that_runs_is_asked(env, make_container, answers):
    asked = answers("redis-replica\n")
    found = [make_container("redis-primary", state="exited"), make_container("redis-replica")]
    assert redis.primary(env, found).service == "redis-replica"
    assert asked == [("acme-dev-redis-replica-1", ["sh", redis.PRIMARY_SCRIPT])]


def test_sentinels_that_do_not_agree(env, pair, answers):
    answers(code=1)
    with pytest.raises(OpsError, match="do not agree"):
        redis.primary(env, pair)


def test_a_primary_that_is_down(env, make_container, answers):
    answers("redis-primary\n")
    with pytest.raises(OpsError, match="redis-primary, the primary of Redis, is not running"):
        redis.primary(env, [make_container("redis-replica")])


def test_no_node_at_all(env, make_container):
    with pytest.raises(OpsError, match="not running in dev"):
        redis.primary(env, [make_container("web")])


def test_failover_is_suspended_at_every_sentinel(make_container, answers):
    asked = answers("OK\n")
    found = [make_container(name) for name in (*redis.SENTINELS, "redis-primary")]
    redis.suspend_failover(found)
    assert [container for container, _ in asked] == [f"acme-dev-{name}-1" for name in redis.SENTINELS]


def test_what_redis_refuses_is_an_error_although_the_client_exits_with_0(make_container, answers):
    answers("NOPERM User default has no permissions\n")
    with pytest.raises(OpsError, match="redis-sentinel-1: NOPERM"):
        redis.resume_failover([make_container("redis-sentinel-1")])


def test_a_plain_pair_has_nothing_to_suspend(pair, answers):
    assert answers() == []
    redis.suspend_failover(pair)
