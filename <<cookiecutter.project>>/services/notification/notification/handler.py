"""Decides what to do with a message, independent of the broker."""

import asyncio
import uuid
from dataclasses import dataclass

from prometheus_client import Counter

from notification.events import Poison, compose, parse
from notification.mailer import Deferred, Mailer, Refused
from notification.store import Claim, Store
from stack import log
from stack.problems import Unavailable
from stack.waiting import backoff

NOTIFICATIONS = Counter("notifications_total", "Messages by what became of them.", ["outcome"])

DELAYS = ("5s", "30s", "300s")


@dataclass(frozen=True)
class Done:
    """Nothing more to do."""


@dataclass(frozen=True)
class Retry:
    """Come back after `delay`, one of DELAYS, as the given attempt."""

    delay: str
    attempt: int
    reason: str


@dataclass(frozen=True)
class Dead:
    """A person has to look at it."""

    reason: str


Verdict = Done | Retry | Dead


def delay_after(attempt: int) -> str:
    """How long to wait after the given attempt, counted from 1, has failed."""
    return DELAYS[min(attempt, len(DELAYS)) - 1]


class Handler:
    """Sends the mail of each event once, in effect.

    The one gap: when the process dies after the mail server has taken a mail and before that is noted, the mail is
    sent again, with the same Message-ID, by which mail programs know the second one.
    """

    def __init__(self, store: Store, mailer: Mailer, *, sender: str, public_url: str, max_attempts: int) -> None:
        self._store, self._mailer = store, mailer
        self._sender, self._public_url, self._max_attempts = sender, public_url, max_attempts

    async def handle(self, body: bytes, attempt: int) -> Verdict:
        """Handle a message.

        Args:
            attempt: counted from 1.

        Raises:
            Unavailable: the database is unreachable; nothing has been done.
        """
        verdict, outcome = await self._handle(body, attempt)
        NOTIFICATIONS.labels(outcome).inc()
        reason = getattr(verdict, "reason", None)
        say = log.get().error if outcome == "dead" else log.get().info
        say("notification", outcome=outcome, attempt=attempt, **({"reason": reason} if reason else {}))
        return verdict

    async def _handle(self, body: bytes, attempt: int) -> tuple[Verdict, str]:
        try:
            event = parse(body)
            mail = compose(event, self._sender, self._public_url)
        except Poison as error:
            return Dead(str(error)), "dead"
        holder = uuid.uuid4()
        claim = await self._store.claim(event.id, holder)
        if claim is Claim.DONE:
            return Done(), "duplicate"
        if claim is Claim.BUSY:
            # Perhaps its holder has died: look again when the lease may be over. Not an attempt.
            return Retry("30s", attempt, "another process is working on it"), "busy"
        try:
            await self._mailer.send(mail)
        except Refused as error:
            await self._store.finish(event.id, "dead")
            return Dead(str(error)), "dead"
        except Deferred as error:
            await self._store.release(event.id, holder)
            if attempt >= self._max_attempts:
                return Dead(f"gave up after {attempt} attempts: {error}"), "dead"
            return Retry(delay_after(attempt), attempt + 1, str(error)), "deferred"
        await self._note_sent(event.id)
        return Done(), "sent"

    async def _note_sent(self, event_id: uuid.UUID) -> None:
        """Record it, however long the database is unreachable: otherwise the mail would be sent again."""
        for pause in backoff(0.2, 5):
            try:
                return await self._store.finish(event_id, "sent")
            except Unavailable as error:
                log.get().warning("sent, but not recorded yet", error=str(error))
                await asyncio.sleep(pause)
