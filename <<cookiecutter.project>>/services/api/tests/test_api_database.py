"""The items in a real PostgreSQL, with a real standby behind it."""

import asyncio
import uuid
from collections import deque

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from api.items import Event, Item, event, now, uuid7
from api.outbox import Relay
from api.position import Positions
from api.reads import MAX_LAG_SECONDS, Reader, ReplicaWatch, near_enough
from api.shared import Shared
from api.store import PostgresStore
from stack.problems import Problem

ANN = uuid.uuid4()


def new(title: str = "one", owner: uuid.UUID = ANN) -> tuple[Item, Event]:
    moment = now()
    item = Item(uuid7(), owner, "ann@example.com", title, "", moment, moment)
    return item, event("item.created", item, "r1")


class Setup:
    def __init__(self, cluster) -> None:
        self.redis_server = FakeServer()
        self.primary, self.replica = cluster.database("api"), cluster.database("api", "standby")
        self.positions = Positions(Shared(FakeAsyncRedis(server=self.redis_server)))
        self.watch = ReplicaWatch(self.primary, self.replica)
        self.store = PostgresStore(
            self.primary, Reader(self.primary, self.replica, self.positions, self.watch), self.positions
        )

    async def look(self) -> None:
        """Until the standby has caught up with what the primary had at the first look."""
        async with asyncio.timeout(60):  # a loaded machine may first have to write a checkpoint
            while not self.watch.usable:
                await asyncio.sleep(0.02)
                self.watch._set(await self.watch._look())


@pytest.fixture
async def setup(cluster):
    made = Setup(cluster)
    await made.look()
    yield made
    await made.primary.close()
    await made.replica.close()


@pytest.fixture
def replay(cluster):
    """Stops and continues the standby's replay."""

    class Replay:
        def pause(self) -> None:
            cluster.caught_up()
            cluster.execute("select pg_wal_replay_pause()", standby=True)

        def resume(self) -> None:
            cluster.execute("select pg_wal_replay_resume()", standby=True)
            cluster.caught_up()

    yield Replay()
    cluster.execute("select pg_wal_replay_resume()", standby=True)


async def test_reads_go_to_the_replica(setup, cluster) -> None:
    item, told = new()
    await setup.store.create(item, told, None)
    cluster.caught_up()
    assert await setup.store.get(item.id, ANN, ANN) == (item, "replica")
    assert await setup.store.list(ANN, ANN, 10, None) == ([item], "replica")
    assert await setup.store.get(item.id, uuid.uuid4(), ANN) == (None, "replica")


async def test_one_reads_what_one_wrote_however_far_behind_the_replica_is(setup, cluster, replay) -> None:
    replay.pause()
    item, told = new()
    await setup.store.create(item, told, None)
    assert await setup.store.get(item.id, ANN, ANN) == (item, "primary")
    assert await setup.store.list(ANN, ANN, 10, None) == ([item], "primary")
    # Someone who has written nothing is served by the replica all the same.
    bob = uuid.uuid4()
    assert await setup.store.get(item.id, None, bob) == (None, "replica")
    replay.resume()
    assert await setup.store.get(item.id, ANN, ANN) == (item, "replica")


async def test_without_redis_reads_use_the_primary_and_positions_follow_later(setup, cluster, replay) -> None:
    replay.pause()
    setup.redis_server.connected = False
    item, told = new()
    await setup.store.create(item, told, None)
    assert await setup.store.get(item.id, ANN, ANN) == (item, "primary")
    setup.redis_server.connected = True
    await asyncio.wait_for(setup.positions._paying, 5)
    assert await setup.store.get(item.id, ANN, ANN) == (item, "primary")


async def test_positions_only_move_forward(setup) -> None:
    async def at(position: int) -> int:
        return position

    await setup.positions.remember({ANN}, lambda: at(2**40))
    await setup.positions.remember({ANN}, lambda: at(2**33))
    assert await setup.positions.of(ANN) == 2**40


async def test_a_replica_that_fails_is_left_alone(setup) -> None:
    item, told = new()
    await setup.store.create(item, told, None)

    async def broken(_):
        raise ConnectionError("gone")

    setup.replica.once = broken
    assert await setup.store.get(item.id, ANN, ANN) == (item, "primary")
    assert not setup.watch.usable


def test_a_replica_too_far_behind_is_not_used() -> None:
    marks = deque([(0.0, 100), (MAX_LAG_SECONDS / 2, 200), (MAX_LAG_SECONDS, 300)])
    assert near_enough(100, MAX_LAG_SECONDS, marks)
    assert not near_enough(99, MAX_LAG_SECONDS, marks)
    assert not near_enough(150, MAX_LAG_SECONDS * 1.5, marks)
    assert near_enough(250, MAX_LAG_SECONDS * 1.5, marks)


async def test_the_same_key_gives_the_same_answer_once(setup, cluster) -> None:
    outcomes = await asyncio.gather(*(setup.store.create(*new(), "key") for _ in range(4)))
    assert len({written.item.id for written in outcomes}) == 1
    assert sorted(written.repeated for written in outcomes) == [False, True, True, True]
    with pytest.raises(Problem) as refused:
        await setup.store.create(*new("other"), "key")
    assert refused.value.status == 422
    assert not (await setup.store.create(*new(owner=uuid.uuid4()), "key")).repeated


async def test_a_write_that_is_repeated_after_a_lost_commit_is_one_write(setup) -> None:
    item, told = new()
    first = await setup.store.create(item, told, "key")
    assert await setup.store.create(item, told, "key") == first
    assert (await setup.store.list(ANN, ANN, 10, None))[0] == [item]


async def test_change_and_delete(setup) -> None:
    item, told = new()
    assert not await setup.store.change(item, told, ANN)
    await setup.store.create(item, told, None)
    assert await setup.store.delete(item, event("item.deleted", item, "r2"), ANN)
    assert not await setup.store.delete(item, event("item.deleted", item, "r3"), ANN)
    assert (await setup.store.get(item.id, ANN, ANN, primary=True))[0] is None


class Broker:
    def __init__(self) -> None:
        self.taken: list[Event] = []
        self.refuse: set[uuid.UUID] = set()
        self.away = False

    async def publish(self, events: list[Event]) -> list[Event]:
        if self.away:
            raise ConnectionError("away")
        await asyncio.sleep(0.05)
        accepted = [event for event in events if event.id not in self.refuse]
        self.taken += accepted
        return accepted

    async def close(self) -> None:
        return


async def until(condition, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_every_event_reaches_the_broker_once_with_several_relays(setup) -> None:
    broker = Broker()
    relays = [Relay(setup.primary, broker) for _ in range(2)]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    told = []
    for number in range(120):
        item, fact = new(f"item {number}")
        await setup.store.create(item, fact, None)
        told.append(fact.id)
        relays[0].wake()
    await until(lambda: len(broker.taken) >= 120)
    await asyncio.sleep(0.2)
    for task in running:
        task.cancel()
    assert sorted(event.id for event in broker.taken) == sorted(told)
    assert broker.taken[0].payload["data"]["title"].startswith("item")


async def test_events_wait_for_the_broker(setup) -> None:
    broker = Broker()
    broker.away = True
    relay = Relay(setup.primary, broker)
    await setup.store.create(*new(), None)
    running = asyncio.create_task(relay.run())
    await asyncio.sleep(0.3)
    assert not broker.taken
    broker.away = False
    await until(lambda: len(broker.taken) == 1)
    running.cancel()


async def test_a_refused_event_does_not_stand_in_the_way(setup) -> None:
    broker = Broker()
    bad, bad_told = new("bad")
    good, good_told = new("good")
    broker.refuse = {bad_told.id}
    await setup.store.create(bad, bad_told, None)
    await setup.store.create(good, good_told, None)
    running = asyncio.create_task(Relay(setup.primary, broker).run())
    await until(lambda: len(broker.taken) == 1)
    assert broker.taken[0].id == good_told.id
    broker.refuse = set()
    await until(lambda: len(broker.taken) == 2)
    running.cancel()
