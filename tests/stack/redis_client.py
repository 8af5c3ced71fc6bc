"""Clients of Redis that note what they were told. Runs in a container of the api's image, on the stack's network:

    redis_client.py write [--confirm] [--host HOST]   writes until its input ends; a line for each write that was taken
    redis_client.py probe --host HOST                 writes to one node by name until its input ends; how it answered
    redis_client.py read                              the numbers of all writes that the primary holds

With --confirm each write waits for a replica (WAIT). Without --host the sentinels are asked for the primary.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import sys
import time
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

PASSWORD = Path("/run/secrets/REDIS_PASSWORD").read_text().strip()
SENTINELS = [(f"redis-sentinel-{number}", 26379) for number in (1, 2, 3)]
# What one write may take in all, seconds: a client that waits longer hides the outage it causes itself.
PATIENCE = 0.5
CONFIRM_MS = 200
FAILURES = (RedisError, OSError, TimeoutError)


def connect(host: str) -> Redis:
    options = {"password": PASSWORD, "socket_timeout": 0.3, "socket_connect_timeout": 0.3}
    options["retry"] = Retry(NoBackoff(), 0)
    if host:
        return Redis(host=host, **options)
    return Sentinel(SENTINELS, sentinel_kwargs=options).master_for("stack", **options)


async def until_input_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def write(host: str, confirm: bool, ended: asyncio.Event) -> None:
    """A line each: number, seconds since the epoch, and how many replicas confirmed (-1: not asked)."""
    redis, number = connect(host), 0
    while not ended.is_set():
        number += 1
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(PATIENCE):
                pipe = redis.pipeline(transaction=False)
                pipe.set(f"write:{number}", 1)
                if confirm:
                    pipe.execute_command("WAIT", 1, CONFIRM_MS)
                answers = await pipe.execute()
            print(number, f"{time.time():.3f}", answers[1] if confirm else -1, flush=True)
            await asyncio.sleep(0.004)
            continue
        # Whatever lies idle in the pool leads to the node that has just failed.
        await redis.connection_pool.disconnect(inuse_connections=False)
        await asyncio.sleep(0.02)


async def probe(host: str, ended: asyncio.Event) -> None:
    """How a node answers writes: a count for each first word, and `accepted` for those it took."""
    answers: collections.Counter[str] = collections.Counter()
    while not ended.is_set():
        redis = connect(host)
        try:
            async with asyncio.timeout(PATIENCE):
                await redis.set("probe", 1)
            answers["accepted"] += 1
        except FAILURES as error:
            answers[(str(error) or type(error).__name__).split()[0]] += 1
        await redis.aclose()
        await asyncio.sleep(0.02)
    print(json.dumps(answers))


async def read() -> None:
    redis = connect("")
    numbers = [int(key.split(b":")[1]) async for key in redis.scan_iter("write:*", count=5000)]
    print(json.dumps(numbers))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["write", "probe", "read"])
    parser.add_argument("--host", default="")
    parser.add_argument("--confirm", action="store_true")
    asked = parser.parse_args()
    if asked.what == "read":
        await read()
        return
    ended = asyncio.Event()
    work = write(asked.host, asked.confirm, ended) if asked.what == "write" else probe(asked.host, ended)
    running = asyncio.create_task(work)
    await until_input_ends()
    ended.set()
    await running


if __name__ == "__main__":
    asyncio.run(main())
