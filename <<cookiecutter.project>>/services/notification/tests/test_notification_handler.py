import asyncio
import uuid
from email.message import EmailMessage

import pytest

from notification.events import Poison, compose, parse
from notification.handler import Dead, Done, Handler, Retry, delay_after
from notification.mailer import Deferred, Refused
from notification.store import Claim, PostgresStore
from stack.problems import Unavailable


class MemoryMailer:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.sent: list[EmailMessage] = []

    async def send(self, mail: EmailMessage) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(mail)


def handler(store, mailer, attempts: int = 4) -> Handler:
    return Handler(
        store, mailer, sender="Stack <no@mail.example>", public_url="https://x.example", max_attempts=attempts
    )


def test_the_mail(message) -> None:
    event = parse(message(title="Naïve\r\nBcc: eve@example.com"))
    mail = compose(event, "Stack <no@mail.example>", "https://x.example")
    assert mail["To"] == "ann@example.com"
    assert mail["Subject"] == "New: Naïve Bcc: eve@example.com"
    assert mail["Bcc"] is None
    assert mail["Message-ID"] == f"<{event.id}@mail.example>"
    assert mail["Date"] == "Mon, 23 Nov 2026 10:00:00 +0000"
    assert "https://x.example" in mail.get_content()
    assert compose(event, "Stack <no@mail.example>", "https://x.example").as_bytes() == mail.as_bytes()


@pytest.mark.parametrize("kind", ["item.created", "item.changed", "item.deleted"])
def test_every_event_of_the_api_has_a_mail(message, kind: str) -> None:
    assert compose(parse(message(kind=kind, title="{odd}")), "no@mail.example", "")["Subject"].endswith(": {odd}")


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"id": 1}'])
def test_what_is_no_event(body: bytes) -> None:
    with pytest.raises(Poison):
        parse(body)


@pytest.mark.parametrize("change", [{"kind": "item.eaten"}, {"title": None}, {"owner_email": ""}])
async def test_poison_is_dead_at_once(message, store, change: dict) -> None:
    mailer = MemoryMailer()
    assert isinstance(await handler(store, mailer).handle(message(**change), 1), Dead)
    assert not mailer.sent


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com\r\nBcc: eve@example.com",
        "=?utf-8?q?victim=40evil.com=2c?=@example.com",
        "=?utf-8?q?=00?=@example.com",
        "ann@example.com, eve@example.com",
        "Ann <ann@example.com>",
        "group: ann@example.com;",
        "a\0b@example.com",
    ],
)
async def test_an_address_that_is_more_than_one_is_poison(message, store, address: str) -> None:
    mailer = MemoryMailer()
    assert isinstance(await handler(store, mailer).handle(message(owner_email=address), 1), Dead)
    assert not mailer.sent


@pytest.mark.parametrize("address", ["o'neill+tag@mail.example", "ann@xn--bcher-kva.example", "a!b%c@example.com"])
def test_addresses_that_accounts_may_have_get_mails(message, address: str) -> None:
    mail = compose(parse(message(owner_email=address)), "no@mail.example", "")
    assert [each.addr_spec for each in mail["To"].addresses] == [address]


async def test_the_same_event_again_sends_nothing(message, store) -> None:
    mailer, body = MemoryMailer(), message()
    assert await handler(store, mailer).handle(body, 1) == Done()
    assert await handler(store, mailer).handle(body, 1) == Done()
    assert len(mailer.sent) == 1


async def test_the_same_event_at_the_same_time_sends_once(message, store) -> None:
    mailer, body = MemoryMailer(), message()
    verdicts = await asyncio.gather(*(handler(store, mailer).handle(body, 2) for _ in range(5)))
    assert len(mailer.sent) == 1
    assert verdicts.count(Done()) == 1
    # The others look again later, and it is not counted as an attempt.
    assert all(v == Retry("30s", 2, "another process is working on it") for v in verdicts if v != Done())


async def test_a_mail_server_that_is_away_is_tried_again_later_and_later(message, store) -> None:
    mailer, body = MemoryMailer(*[Deferred("no")] * 4), message()
    one = handler(store, mailer)
    assert await one.handle(body, 1) == Retry("5s", 2, "no")
    assert await one.handle(body, 2) == Retry("30s", 3, "no")
    assert await one.handle(body, 3) == Retry("300s", 4, "no")
    assert await one.handle(body, 4) == Dead("gave up after 4 attempts: no")
    # What a person puts back into the queue is sent after all.
    assert await one.handle(body, 1) == Done()
    assert len(mailer.sent) == 1


def test_delays() -> None:
    assert [delay_after(n) for n in range(1, 6)] == ["5s", "30s", "300s", "300s", "300s"]


async def test_a_refused_mail_is_dead_and_stays_so(message, store) -> None:
    mailer, body = MemoryMailer(Refused("550 no such user")), message()
    assert await handler(store, mailer).handle(body, 1) == Dead("550 no such user")
    assert await handler(store, mailer).handle(body, 1) == Done()
    assert not mailer.sent


async def test_what_was_sent_is_noted_even_when_the_database_is_away_for_a_while(message, store) -> None:
    away = 2
    finish = store.finish

    async def flaky(event_id: uuid.UUID, state: str) -> None:
        nonlocal away
        if away:
            away -= 1
            raise Unavailable("the database")
        await finish(event_id, state)

    store.finish = flaky
    mailer, body = MemoryMailer(), message()
    assert await handler(store, mailer).handle(body, 1) == Done()
    assert list(store.state.values()) == ["sent"]


async def test_the_store(cluster) -> None:
    database = cluster.database("notification")
    store, event, one, other = PostgresStore(database), uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    assert await store.claim(event, one) is Claim.GRANTED
    assert await store.claim(event, one) is Claim.GRANTED  # the same question again
    assert await store.claim(event, other) is Claim.BUSY
    await store.release(event, other)
    assert await store.claim(event, other) is Claim.BUSY
    await store.release(event, one)
    assert await store.claim(event, other) is Claim.GRANTED
    cluster.execute("update notification.deliveries set leased_until = now() - interval '1 second'")
    assert await store.claim(event, one) is Claim.GRANTED  # its holder has died
    await store.finish(event, "sent")
    await store.release(event, one)
    assert await store.claim(event, other) is Claim.DONE
    claims = await asyncio.gather(*(store.claim(uuid.UUID(int=7), uuid.uuid4()) for _ in range(8)))
    assert claims.count(Claim.GRANTED) == 1
    cluster.execute("update notification.deliveries set updated_at = now() - interval '31 days'")
    await store.clean()
    assert await store.claim(event, other) is Claim.GRANTED
    await database.close()
