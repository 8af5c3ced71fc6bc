"""What becomes of a message, with a stand-in for the broker."""

import asyncio
import uuid
from types import SimpleNamespace

import aio_pika
import pytest

from notification.consumer import Consumer, attempt_of, copy_of
from notification.handler import Dead, Done, Retry
from stack.lifecycle import Lifecycle
from stack.problems import Unavailable


class Message(SimpleNamespace):
    def __init__(self, **values) -> None:
        super().__init__(
            body=b"{}", headers={"request_id": "r1"}, message_id=str(uuid.uuid4()), content_type="application/json",
            type="item.created", answers=[], **values,
        )  # fmt: skip

    async def ack(self) -> None:
        self.answers.append("ack")

    async def nack(self, requeue: bool) -> None:
        self.answers.append("nack" if requeue else "reject")


class Exchange:
    def __init__(self, name: str, published: list, failure: Exception | None) -> None:
        self.name, self.published, self.failure = name, published, failure

    async def publish(self, message, routing_key, *, mandatory, timeout) -> None:
        if self.failure:
            raise self.failure
        assert mandatory
        self.published.append((self.name, routing_key, message))


class Channel:
    def __init__(self, failure: Exception | None = None) -> None:
        self.published: list[tuple[str, str, aio_pika.Message]] = []
        self.failure = failure

    @property
    def default_exchange(self) -> Exchange:
        return Exchange("", self.published, self.failure)

    async def get_exchange(self, name: str, ensure: bool) -> Exchange:
        return Exchange(name, self.published, self.failure)


class Decides:
    def __init__(self, *outcomes) -> None:
        self.outcomes = list(outcomes)
        self.attempts: list[int] = []

    async def handle(self, body: bytes, attempt: int):
        self.attempts.append(attempt)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, float):
            await asyncio.sleep(outcome)
            return Done()
        return outcome


def consumer(*outcomes, failure: Exception | None = None, grace: float = 0.2) -> tuple[Consumer, Channel]:
    made = Consumer(None, None, Decides(*outcomes), Lifecycle(), grace)
    made._out, made._channel = Channel(failure), object()
    return made, made._out


async def process(made: Consumer, message: Message) -> None:
    await made._take(message)
    await asyncio.gather(*made._held)


async def test_done_is_acknowledged() -> None:
    made, channel = consumer(Done())
    await process(made, message := Message())
    assert (message.answers, channel.published) == (["ack"], [])


async def test_a_retry_is_published_before_the_original_is_acknowledged() -> None:
    made, channel = consumer(Retry("30s", 3, "no"))
    await process(made, message := Message())
    ((exchange, key, copy),) = channel.published
    assert (exchange, key) == ("", "notification.retry.30s")
    assert copy.headers == {"request_id": "r1", "x-attempt": 3, "x-error": "no"}
    assert (copy.message_id, copy.body, message.answers) == (message.message_id, message.body, ["ack"])


async def test_dead_goes_through_its_exchange() -> None:
    made, channel = consumer(Dead("why"))
    await process(made, message := Message())
    ((exchange, _, copy),) = channel.published
    assert (exchange, copy.headers["x-error"], message.answers) == ("events.dead", "why", ["ack"])


@pytest.mark.parametrize("verdict", [Retry("5s", 2, "no"), Dead("why")])
async def test_what_cannot_be_passed_on_is_given_back(verdict) -> None:
    made, _ = consumer(verdict, failure=ConnectionError("gone"))
    await process(made, message := Message())
    assert message.answers == ["nack"]


async def test_the_attempt_is_handed_over() -> None:
    made, _ = consumer(Done())
    message = Message()
    message.headers["x-attempt"] = 4
    await process(made, message)
    assert made._handler.attempts == [4]


async def test_a_message_waits_for_the_database() -> None:
    made, _ = consumer(Unavailable("the database"), Done())
    await process(made, message := Message())
    assert message.answers == ["ack"]


async def test_a_message_that_waits_is_given_back_when_the_process_goes() -> None:
    made, _ = consumer(Unavailable("the database"))
    made._lifecycle.drain()
    await process(made, message := Message())
    assert message.answers == ["nack"]


async def test_at_the_end_what_is_held_is_finished_and_the_rest_given_back() -> None:
    made, _ = consumer(0.05, 30.0)
    short, long = Message(), Message()
    await made._take(short)
    await made._take(long)
    await asyncio.sleep(0)
    await made._finish()
    assert (short.answers, long.answers) == (["ack"], ["nack"])


@pytest.mark.parametrize(("headers", "attempt"), [({}, 1), ({"x-attempt": 3}, 3), ({"x-attempt": "x"}, 1)])
def test_attempt(headers: dict, attempt: int) -> None:
    assert attempt_of(headers) == attempt


def test_a_copy_leaves_the_brokers_notes_behind() -> None:
    message = Message()
    message.headers |= {"x-death": [{}], "x-first-death-queue": "q", "x-last-death-reason": "r", "x-delivery-count": 1}
    assert copy_of(message).headers == {"request_id": "r1"}


async def test_not_consuming_is_not_ready() -> None:
    made, _ = consumer()
    made._channel = None
    with pytest.raises(ConnectionError, match=r"not consuming notification\.events"):
        await made.check()


async def test_it_goes_at_once_when_the_broker_was_never_there(secrets, monkeypatch, client_of) -> None:
    from notification.app import create_app

    for name in ("DATABASE_HOSTS", "SMTP_HOST"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("RABBITMQ_HOSTS", "127.0.0.1:1,127.0.0.1:2")
    monkeypatch.setenv("MAIL_FROM", "no@mail.example")
    async with asyncio.timeout(10), client_of(create_app()) as client:
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["database", "rabbitmq"])
