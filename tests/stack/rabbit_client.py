"""Clients of RabbitMQ that note what they were told. Runs in a container of the api's image, on the stack's network:

    rabbit_client.py publish [--unconfirmed] [--pause S] [--nodes a,b]   until its input ends; a line for each message
                                                                         taken
    rabbit_client.py drain [--nodes a,b]                                 the numbers of all messages, which it removes

The queue is a quorum queue of its own. A message counts as taken when the broker has confirmed it; with --unconfirmed
(the control) as soon as it was sent. One that was not confirmed is not sent again: it is simply not claimed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from pathlib import Path

import aio_pika
from yarl import URL

PASSWORD = Path("/run/secrets/RABBITMQ_PASSWORD").read_text().strip()
QUEUE = "bench"
# Messages on their way at a time, and the pause between two, seconds.
WINDOW = 50
PAUSE = 0.003
PATIENCE = 3


async def connect(nodes: list[str]) -> aio_pika.abc.AbstractConnection:
    host = random.choice(nodes)
    url = URL.build(scheme="amqp", user="admin", password=PASSWORD, host=host, path="//", query={"heartbeat": "5"})
    async with asyncio.timeout(PATIENCE):
        return await aio_pika.connect(url, timeout=PATIENCE)


async def publish(nodes: list[str], confirmed: bool, pause: float, ended: asyncio.Event) -> None:
    number, under_way = 0, asyncio.Semaphore(WINDOW)

    async def send(exchange: aio_pika.abc.AbstractExchange, number: int, broken: asyncio.Event) -> None:
        message = aio_pika.Message(str(number).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        try:
            async with asyncio.timeout(PATIENCE):
                await exchange.publish(message, QUEUE)
            print(number, f"{time.time():.3f}", flush=True)
        except Exception:
            broken.set()
        finally:
            under_way.release()

    while not ended.is_set():
        with contextlib.suppress(Exception):
            connection = await connect(nodes)
            async with connection:
                channel = await connection.channel(publisher_confirms=confirmed)
                async with asyncio.timeout(PATIENCE):
                    await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
                broken, tasks = asyncio.Event(), set()
                while not (ended.is_set() or broken.is_set() or connection.is_closed):
                    await under_way.acquire()
                    number += 1
                    task = asyncio.create_task(send(channel.default_exchange, number, broken))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    await asyncio.sleep(pause)
                await asyncio.gather(*tasks)
        await asyncio.sleep(0.1)


async def drain(nodes: list[str]) -> None:
    found = []
    async with await connect(nodes) as connection:
        channel = await connection.channel()
        await channel.set_qos(500)
        queue = await channel.get_queue(QUEUE)
        with contextlib.suppress(TimeoutError):
            async with queue.iterator(timeout=3) as messages:
                async for message in messages:
                    found.append(int(message.body))
                    await message.ack()
        await queue.delete(if_unused=False, if_empty=False)
    print(json.dumps(found))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["publish", "drain"])
    parser.add_argument("--nodes", default="rabbitmq")
    parser.add_argument("--unconfirmed", action="store_true")
    parser.add_argument("--pause", type=float, default=PAUSE)
    asked = parser.parse_args()
    nodes = asked.nodes.split(",")
    if asked.what == "drain":
        await drain(nodes)
        return
    ended = asyncio.Event()
    running = asyncio.create_task(publish(nodes, not asked.unconfirmed, asked.pause, ended))
    await asyncio.to_thread(sys.stdin.read)
    ended.set()
    await running


if __name__ == "__main__":
    asyncio.run(main())
