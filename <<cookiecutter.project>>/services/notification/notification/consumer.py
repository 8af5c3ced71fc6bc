"""Consumes messages and carries out what the handler decides."""

import asyncio
import contextlib
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from pydantic import SecretStr
from structlog.contextvars import bound_contextvars

from notification.handler import Dead, Handler, Retry, Verdict
from stack import broker, log
from stack.lifecycle import Lifecycle
from stack.problems import Unavailable
from stack.settings import BrokerSettings
from stack.waiting import backoff, within

QUEUE = "notification.events"
QUEUES = (QUEUE, "notification.retry.5s", "notification.retry.30s", "notification.retry.300s", "notification.dead")
DEAD_EXCHANGE = "events.dead"
PREFETCH = 16
CONFIRM_SECONDS = 5.0


def attempt_of(headers: dict[str, Any]) -> int:
    """Which attempt this is, counted from 1."""
    value = headers.get("x-attempt", 1)
    return value if isinstance(value, int) and value > 0 else 1


def copy_of(message: AbstractIncomingMessage, **headers: Any) -> aio_pika.Message:
    """The same message with more headers, and without what the broker has noted about its way so far."""
    kept = {name: value for name, value in message.headers.items() if not name.startswith(("x-death", "x-first-death"))}
    kept = {name: value for name, value in kept.items() if not name.startswith(("x-last-death", "x-delivery-count"))}
    return aio_pika.Message(
        message.body,
        headers={**kept, **headers},
        content_type=message.content_type,
        message_id=message.message_id,
        type=message.type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


class Consumer:
    """Consumes until the process drains; reconnects after the broker was unreachable."""

    def __init__(
        self, settings: BrokerSettings, password: SecretStr, handler: Handler, lifecycle: Lifecycle, grace: float
    ) -> None:
        self._settings, self._password = settings, password
        self._handler, self._lifecycle, self._grace = handler, lifecycle, grace
        self._held: dict[asyncio.Task[None], AbstractIncomingMessage] = {}
        self._channel: AbstractChannel | None = None
        self._out: AbstractChannel | None = None

    async def run(self) -> None:
        """Work until the process drains and what was held is done."""
        pauses = backoff(0.5, 15)
        while not self._lifecycle.draining:
            try:
                async with await broker.connect(self._settings, self._password) as connection:
                    await self._consume(connection)
                    pauses = backoff(0.5, 15)
            except Exception as error:
                log.get().warning("broker is unreachable", error=repr(error))
            self._channel = self._out = None
            if not self._lifecycle.draining:
                with contextlib.suppress(TimeoutError):
                    await within(next(pauses), self._lifecycle.until_draining())

    async def _consume(self, connection: aio_pika.abc.AbstractConnection) -> None:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(PREFETCH)
        self._out = await connection.channel(publisher_confirms=True, on_return_raises=True)
        lost = asyncio.Event()
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: lost.set())
        queue = await channel.get_queue(QUEUE, ensure=False)
        tag = await queue.consume(self._take, timeout=broker.TIMEOUT)
        self._channel = channel
        log.get().info("consuming", queue=QUEUE)
        endings = [
            asyncio.ensure_future(ending)
            for ending in (
                self._lifecycle.until_draining(),
                lost.wait(),
                _ended(connection),
                _ended(channel),
                _ended(self._out),
            )
        ]
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for ending in endings:
                ending.cancel()
            self._channel = None
        if self._lifecycle.draining:
            with contextlib.suppress(Exception):
                await queue.cancel(tag, timeout=broker.TIMEOUT)
            await self._finish()
        else:
            log.get().warning("stopped consuming", queue=QUEUE)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        task = asyncio.create_task(self._process(message))
        self._held[task] = message
        task.add_done_callback(lambda done: self._held.pop(done, None))

    async def _finish(self) -> None:
        """Finish what is held; give back what takes too long."""
        if self._held:
            await asyncio.wait([*self._held], timeout=self._grace)
        for task, message in list(self._held.items()):
            task.cancel()
            with contextlib.suppress(Exception):
                await message.nack(requeue=True)
            log.get().warning("message returned to the queue", message_id=message.message_id)

    async def _process(self, message: AbstractIncomingMessage) -> None:
        request_id = str(message.headers.get("request_id", ""))[:128]
        with bound_contextvars(request_id=request_id, event_id=message.message_id):
            try:
                for pause in backoff(0.5, 15):
                    try:
                        verdict = await self._handler.handle(message.body, attempt_of(message.headers))
                        break
                    except Unavailable as error:
                        # Giving it back would only bring it again at once, and count against it.
                        log.get().warning("message is waiting", error=str(error))
                        if self._lifecycle.draining or self._channel is None:
                            await message.nack(requeue=True)
                            return
                        await asyncio.sleep(pause)
                await self._conclude(message, verdict)
            except Exception as error:
                # Without an answer the broker delivers it again; its delivery limit keeps this from going on for ever.
                log.get().error("message not handled", error=repr(error))
                with contextlib.suppress(Exception):
                    await message.nack(requeue=True)

    async def _conclude(self, message: AbstractIncomingMessage, verdict: Verdict) -> None:
        if isinstance(verdict, Retry):
            copy = copy_of(message, **{"x-attempt": verdict.attempt, "x-error": verdict.reason[:500]})
            await self._publish(copy, "", f"notification.retry.{verdict.delay}")
        elif isinstance(verdict, Dead):
            await self._publish(copy_of(message, **{"x-error": verdict.reason[:500]}), DEAD_EXCHANGE, QUEUE)
        await message.ack()

    async def _publish(self, message: aio_pika.Message, exchange: str, routing_key: str) -> None:
        if self._out is None:
            raise ConnectionError("the broker is unreachable")
        target = self._out.default_exchange if not exchange else await self._out.get_exchange(exchange, ensure=False)
        await target.publish(message, routing_key, mandatory=True, timeout=CONFIRM_SECONDS)

    async def check(self) -> dict[str, Any]:
        """How full the queues are. For health checks.

        Raises:
            ConnectionError: not consuming.
        """
        if self._channel is None or self._out is None:
            raise ConnectionError(f"not consuming {QUEUE}")
        queues = {}
        for name in QUEUES:
            declared = (await self._out.declare_queue(name, passive=True)).declaration_result
            queues[name] = {"messages": declared.message_count, "consumers": declared.consumer_count}
        return {"queues": queues}


async def _ended(thing: Any) -> None:
    with contextlib.suppress(Exception):
        await thing.closed()
