"""Redis comes and goes, and another one may be the primary when it is back."""

import asyncio
import time

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError, ResponseError

from api.position import KEEP_SECONDS, MAX_LAG_SECONDS
from api.settings import ApiSettings
from api.shared import PATIENCE, PAUSE, SENTINEL_PATIENCE, Away, Shared, connect


async def test_a_redis_that_falls_silent_costs_next_to_nothing() -> None:
    calls = 0

    async def silent(_) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(30)

    shared = Shared(FakeAsyncRedis())
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(Away):
            await shared.do(silent)
    assert (calls, time.monotonic() - began < 2 * PATIENCE) == (1, True)
    await asyncio.sleep(PAUSE)
    assert await shared.do(lambda redis: redis.get("x")) is None


class Pipeline:
    """Notes its commands, and says how many replicas confirmed them."""

    def __init__(self, redis: "Replicated") -> None:
        self.redis, self.commands = redis, []

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(self, *_) -> None:
        self.redis.sent.append(self.commands)

    def execute_command(self, *command) -> None:
        self.commands.append(command)

    async def execute(self) -> list:
        return [True, self.redis.replicas]


class Replicated:
    """As much of a client as a change needs."""

    def __init__(self, replicas: int) -> None:
        self.replicas, self.sent = replicas, []

    def pipeline(self, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline(self)


def put(pipe: Pipeline) -> None:
    pipe.execute_command("SET", "x", 1)


async def test_a_change_waits_for_the_replica_where_a_failover_could_lose_it() -> None:
    redis = Replicated(replicas=1)
    shared = Shared(redis, sentinel=object())
    await shared.change(put)
    await shared.change(put)
    assert [[command[0] for command in sent] for sent in redis.sent] == [["SET", "WAIT"], ["SET", "WAIT"]]
    await Shared(plain := Replicated(replicas=1)).change(put)
    assert plain.sent == [[("SET", "x", 1)]]


async def test_a_replica_that_is_away_costs_one_wait_a_second() -> None:
    redis = Replicated(replicas=0)
    shared = Shared(redis, sentinel=object())
    for _ in range(3):
        await shared.change(put)
    await asyncio.sleep(PAUSE)
    await shared.change(put)
    assert [len(sent) for sent in redis.sent] == [2, 1, 1, 2]


async def test_a_primary_that_refuses_writes_is_not_read_either_and_its_connections_go() -> None:
    async def refused(_) -> None:
        raise ResponseError("NOREPLICAS Not enough good replicas to write.")

    shared = Shared(FakeAsyncRedis())
    dropped = asyncio.Event()

    async def disconnect(inuse_connections: bool) -> None:
        assert not inuse_connections
        dropped.set()

    shared.redis.connection_pool.disconnect = disconnect
    with pytest.raises(Away):
        await shared.do(refused)
    await asyncio.wait_for(dropped.wait(), 1)


async def test_values_are_read_with_a_command_that_only_a_primary_takes() -> None:
    asked = []
    redis = FakeAsyncRedis()
    original = redis.execute_command

    async def execute_command(*command, **options):
        asked.append(command[0])
        return await original(*command, **options)

    redis.execute_command = execute_command
    await redis.set("x", "1", ex=100)
    assert await Shared(redis).get("x") == b"1"
    assert asked == ["SET", "GETEX"]
    assert await redis.ttl("x") > 90


async def test_it_is_as_ready_as_a_write_shows() -> None:
    server = FakeServer()
    shared = Shared(FakeAsyncRedis(server=server))
    await shared.ping()
    server.connected = False
    with pytest.raises(RedisError):
        await shared.ping()


async def test_sentinels_are_asked_when_there_are_any() -> None:
    plain = connect("redis-primary", 6379, "", "secret", "api")
    assert plain.redis.connection_pool.connection_kwargs["host"] == "redis-primary"
    with_sentinels = connect("redis-primary", 6379, "s1:26379,s2,s3", "secret", "api")
    pool = with_sentinels.redis.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    hosts = {each.connection_pool.connection_kwargs["host"] for each in pool.sentinel_manager.sentinels}
    assert hosts == {"s1", "s2", "s3"}
    assert 3 * SENTINEL_PATIENCE < PATIENCE
    await plain.close()
    await with_sentinels.close()


async def test_no_sentinel_answers_in_time() -> None:
    shared = connect("nobody", 6379, "127.0.0.1:1,127.0.0.1:2", "secret", "api")
    began = time.monotonic()
    with pytest.raises(Away):
        await shared.get("x")
    assert time.monotonic() - began < 2 * PATIENCE
    await shared.close()


def test_cached_items_expire_before_marks_that_still_matter(environment) -> None:
    longest = ApiSettings.model_fields["cache_seconds"].metadata[1].le
    assert longest + MAX_LAG_SECONDS <= KEEP_SECONDS
