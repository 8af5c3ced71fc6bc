"""An open-loop load: requests leave at fixed times, whether or not earlier ones have been answered.

    python -m tests.load.generator < CONTROL

The first line of CONTROL is the job (see `Job`) as JSON, every further line the name of the phase that begins, its end
the end of the load. Says `started` on the first line of its output, and gives the result as JSON on the second.
A process of its own: what a test does meanwhile must not make it late.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.load.client import Answer, Endpoint, Fresh, Kept, Lost, Request, trusting
from tests.load.http2 import Multiplexed
from tests.load.mix import MIXTURES, Turn, User, turns

# An answer that has not come after this long, in seconds, does not come any more.
TIMEOUT = 30


class Sample(NamedTuple):
    """One request. due: seconds since the start; late: how much later it was sent, in seconds; took: from when it was
    due to its answer, or to when it was given up. lost: why, "" for none."""

    kind: str
    name: str
    writes: str
    transport: str
    hops: int
    phase: str
    due: float
    late: float
    took: float
    lost: str = ""


class Transport(Protocol):
    """A way to send requests."""

    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""

    def close(self) -> None:
        """Close what is open."""


TRANSPORTS: dict[str, Callable[[Endpoint], Transport]] = {
    "kept": Kept,
    "fresh": Fresh,
    # People, who click now and then: at ten requests a second once in eight seconds each.
    "seldom": partial(Kept, clients=80),
    "http2": Multiplexed,
}


@dataclass(frozen=True)
class Job:
    """What to do. rate: requests a second, all transports together; run: what the names of the writes begin with;
    mixture: what is asked, a name of `mix.MIXTURES`."""

    host: str
    port: int
    authority: str
    trust: str  # path of the certificate authority
    rate: float
    run: str
    transports: list[str]
    users: list[User]
    mixture: str = "stack"

    @classmethod
    def parse(cls, text: str) -> Job:
        """From JSON."""
        values = json.loads(text)
        return cls(**{**values, "users": [User(**each) for each in values["users"]]})

    def encode(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))


class Generator:
    """One run."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._phase = "start"
        self._ended = False
        self._open: set[asyncio.Task[None]] = set()
        self.samples: list[Sample] = []
        self.transports: dict[str, Transport] = {}
        for name in {*job.transports}:
            tls = trusting(Path(job.trust), *(["h2"] if name == "http2" else []))
            self.transports[name] = TRANSPORTS[name](Endpoint((job.host, job.port), job.authority, tls))

    def enter(self, phase: str) -> None:
        """What is due from now on belongs to `phase`."""
        self._phase = phase

    def end(self) -> None:
        """Send nothing more."""
        self._ended = True

    async def run(self) -> None:
        """Send until `end`, and wait for the answers."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        job = self._job
        asked = turns(job.users, job.run, job.transports, kinds=MIXTURES[job.mixture])
        for number, turn in enumerate(asked):
            due = start + number / job.rate
            await asyncio.sleep(due - loop.time())
            if self._ended:
                break
            task = asyncio.create_task(self._one(turn, start, due, self._phase))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        if self._open:
            await asyncio.wait(self._open)
        for transport in self.transports.values():
            transport.close()

    async def _one(self, turn: Turn, start: float, due: float, phase: str) -> None:
        loop = asyncio.get_running_loop()
        late, lost = loop.time() - due, ""
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await self.transports[turn.transport].ask(turn.request)
            if not turn.kind.expected(answer):
                lost = f"status {answer.status}"
        except Lost as error:
            lost = error.reason
        except TimeoutError:
            lost = "timeout"
        kind = turn.kind
        took = loop.time() - due
        self.samples.append(
            Sample(kind.name, turn.name, kind.writes, turn.transport, kind.hops, phase, due - start, late, took, lost)
        )

    def result(self) -> dict[str, Any]:
        """Everything that happened, for `report.Report`."""
        counters = ("reopened", "resent")
        return {
            "rate": self._job.rate,
            "samples": self.samples,
            **{each: sum(getattr(way, each, 0) for way in self.transports.values()) for each in counters},
        }


async def _main() -> None:
    job = Job.parse(sys.stdin.readline())
    generator = Generator(job)
    loop = asyncio.get_running_loop()

    def control() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(generator.enter, line.strip())
        loop.call_soon_threadsafe(generator.end)

    reading = asyncio.create_task(asyncio.to_thread(control))
    gc.freeze()  # what is loaded stays: later collections need not look through it
    print("started", flush=True)
    await generator.run()
    await reading
    print(json.dumps(generator.result()), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
