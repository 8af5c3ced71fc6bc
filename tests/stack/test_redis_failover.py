"""Redis loses its primary: the other takes over, and nothing that was confirmed is lost. Long form: tests/bench."""

from __future__ import annotations

import subprocess

import pytest

from . import redis_faults as redis
from .clients import container
from .project import Project, docker, eventually

pytestmark = [pytest.mark.story, pytest.mark.fault]


def test_sentinels_agree(project: Project) -> None:
    redis.start(project)
    assert redis.settled(project) == ("redis-primary", "redis-replica")
    # From the beginning, and not only when the primary was asked: it may be lost before that.
    for sentinel in redis.SENTINELS:
        assert "redis-replica" in redis.inside(project, sentinel, "sh /etc/redis/cli.sh sentinel replicas stack")


def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(project: Project) -> None:
    outcome = redis.endure(project, "kill")
    assert outcome.taken > 200
    assert outcome.confirmed > 100
    assert (outcome.lost, outcome.accepted) == (0, 0), outcome
    assert redis.settled(project) == ("redis-replica", "redis-primary")


def test_what_a_lost_primary_was_told_without_waiting_is_lost(project: Project) -> None:
    """The control: a count of 0 means something only beside one that is not."""
    assert redis.alone(project, confirm=False).lost > 0
    assert redis.alone(project, confirm=True).lost == 0


def test_everything_off_and_on_again_keeps_the_roles(project: Project) -> None:
    before = redis.settled(project)
    names = [container(project, service) for service in (*redis.NODES, *redis.SENTINELS)]
    docker("kill", *names)
    docker("start", *names)
    eventually(lambda: redis.quorum(project), 60, "sentinels that agree again")
    after = redis.settled(project)
    # One that comes up late enough may find the other promoted; the roles are kept by the sentinels, not by the names.
    said = {redis.inside(project, node, "sh /etc/redis/primary.sh") for node in redis.NODES}
    assert said == {after[0]}
    assert set(after) == set(before)


def test_passwords_are_wanted(project: Project) -> None:
    def ask(*arguments: str) -> str:
        name = container(project, "redis-sentinel-1")
        done = subprocess.run(["docker", "exec", name, "redis-cli", "-p", "26379", *arguments], capture_output=True)
        return (done.stdout + done.stderr).decode()

    assert "NOAUTH" in ask("sentinel", "masters")
    asking = 'REDISCLI_AUTH=$(cat /run/secrets/REDIS_PASSWORD) redis-cli -p 26379 --no-auth-warning "$@"'
    assert "NOPERM" in redis.inside(project, "redis-sentinel-1", f"set -- sentinel failover stack; {asking}")
