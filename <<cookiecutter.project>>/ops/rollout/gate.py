"""The gate after a deploy: waits until every service is healthy, and stops early when it sees that one never will be.

`Gate.observe` is the whole judgement, over recorded states; `watch` feeds it from the engine and draws what it sees.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from ops import engine
from ops.base import console
from ops.base.errors import CRASHED, NOT_READY, OUT_OF_MEMORY, OpsError
from ops.engine import Container
from ops.stack.model import Service

# Two docker calls a look, 50 ms of one core: once a second is smooth for a person and cheap for the machine.
LOOK_SECONDS = 1.0
# A container that came back three times in one deploy will do so a fourth time.
RESTARTS_ALLOWED = 2
# Without a health check, "runs" means: for this long.
STEADY_SECONDS = 3
# An unhealthy service gets one more probe, because what it depends on may have just come back; but no more than this.
SECOND_CHANCE_SECONDS = 15
# Of a log line in a message. One of JSON with a traceback in it has thousands of characters.
LINE_LENGTH = 400
# How long a container may be missing or stopped after Compose said that it is done.
SETTLE_SECONDS = 3

# Of a state in a table; what is on its way is yellow.
COLOURS = {"healthy": "green", "done": "green", "unhealthy": "red", "exited": "red", "dead": "red", "restarting": "red"}

WAITING, READY, FAILED = "waiting", "ready", "failed"


class Work(Protocol):
    """What runs while the gate looks on: None while it works, then its exit code."""

    def poll(self) -> int | None: ...


@dataclass(frozen=True)
class Row:
    """A service at a glance."""

    service: str
    ready: int
    wanted: int
    state: str
    since: float = 0  # seconds it took to become ready; 0 while it is not, or when it was ready before

    @property
    def done(self) -> bool:
        return self.state == "healthy"


_OUT_OF_MEMORY = ": out of memory, its limit is too low"


@dataclass(frozen=True)
class Verdict:
    """What one look told. culprit, reason and code (exit code of the command): set when it failed."""

    status: str
    rows: tuple[Row, ...]
    culprit: str = ""
    reason: str = ""
    container: Container | None = None
    code: int = NOT_READY


@dataclass
class Gate:
    """Judges a deploy from successive looks at its containers.

    services: those that must become ready. before: the containers that were there when the work began; while it lasts
    they may stop, because Compose replaces them.
    """

    services: Mapping[str, Service]
    before: Sequence[Container] = ()
    restarts_allowed: int = RESTARTS_ALLOWED
    _began: float = -1
    _finished: float = -1
    _unhealthy: dict[str, float] = field(default_factory=dict)
    _ready_after: dict[str, float] = field(default_factory=dict)

    def observe(self, containers: Sequence[Container], now: float, working: bool = False) -> Verdict:
        """The verdict at the time `now` (seconds, monotonic). working: Compose is still creating and starting."""
        if self._began < 0:
            self._began = now
        if not working and self._finished < 0:
            self._finished = now
        rows = []
        failures: dict[str, tuple[str, Container | None, int]] = {}
        for name, service in self.services.items():
            mine = [each for each in containers if each.service == name]
            ready = [each for each in mine if self._ready(service, each, now)]
            for each in mine:
                if hopeless := self._hopeless(service, each, now):
                    reason, code = hopeless
                    failures.setdefault(name, (reason, each, code))
            settled = self._finished >= 0 and now - self._finished >= SETTLE_SECONDS
            if len(mine) < service.replicas and settled:
                failures.setdefault(name, (f"has {len(mine)} of {service.replicas} containers", None, NOT_READY))
            complete = len(ready) == len(mine) == service.replicas
            if complete and not (working and any(self._old(each) for each in mine)):
                was = all((old := self._old(each)) and old.ready for each in mine)
                self._ready_after.setdefault(name, 0 if was else now - self._began)
            elif not complete:
                self._ready_after.pop(name, None)
            # Compose makes the new container before it stops the old one.
            replacing = working and len(mine) > service.replicas
            word = "healthy" if complete else "replacing" if replacing else unready(mine)
            rows.append(Row(name, len(ready), service.replicas, word, self._ready_after.get(name, 0)))
        if failures:
            culprit = self._root({*failures})
            return Verdict(FAILED, tuple(rows), culprit, *failures[culprit])
        done = not working and all(row.done for row in rows)
        return Verdict(READY if done else WAITING, tuple(rows))

    def late(self, containers: Sequence[Container], verdict: Verdict, seconds: float) -> Verdict:
        """The verdict when time is up: whoever is not ready although all it stands on is."""
        culprit = self._root({row.service for row in verdict.rows if not row.done} or {*self.services})
        mine = [each for each in containers if each.service == culprit]
        worst = next((each for each in mine if not each.ready), mine[0] if mine else None)
        word = next(row.state for row in verdict.rows if row.service == culprit)
        starved = worst is not None and worst.oom_killed
        reason = f"was not healthy within {seconds:.0f} s (it is {word}){_OUT_OF_MEMORY if starved else ''}"
        return Verdict(FAILED, verdict.rows, culprit, reason, worst, OUT_OF_MEMORY if starved else NOT_READY)

    def _ready(self, service: Service, each: Container, now: float) -> bool:
        if not each.ready:
            return False
        return service.has_health or self._old(each) is not None or now - self._began >= STEADY_SECONDS

    def _old(self, each: Container) -> Container | None:
        return next((other for other in self.before if other.id == each.id), None)

    def _hopeless(self, service: Service, each: Container, now: float) -> tuple[str, int] | None:
        """Why this container will not become ready, and the exit code for that; None while it may."""
        old = self._old(each)
        ended = OUT_OF_MEMORY if each.oom_killed else CRASHED
        restarts = each.restarts - (old.restarts if old else 0)
        if restarts > self.restarts_allowed:
            return f"restarted {'once' if restarts == 1 else f'{restarts} times'}{_ending(each)}", ended
        settled = self._finished >= 0 and now - self._finished >= SETTLE_SECONDS
        if each.state in {"exited", "dead"} and (settled or old is None):
            return f"stopped{_ending(each)}", ended
        if each.state == "created" and settled:
            return f"was created but did not start: {each.error or 'no reason given'}", CRASHED
        if each.health != "unhealthy":
            self._unhealthy.pop(each.id, None)
            return None
        since = self._unhealthy.setdefault(each.id, now)
        chance = min(service.probe_seconds, SECOND_CHANCE_SECONDS)
        if now - since <= chance:
            return None
        # A process in it was killed, if not the first one: the dev image waits for a change when its service has ended.
        return (f"is unhealthy{_OUT_OF_MEMORY}", OUT_OF_MEMORY) if each.oom_killed else ("is unhealthy", NOT_READY)

    def _root(self, names: set[str]) -> str:
        """Of several services the one that stands on none of the others: the likely cause."""
        for name in self.services:
            if name in names and not names.intersection(self.services[name].depends_on):
                return name
        return min(names)


def _ending(each: Container) -> str:
    if each.oom_killed:
        return _OUT_OF_MEMORY
    if each.running:
        # Back again for now: the code of its last end is no longer told.
        return ""
    return f" with exit code {each.exit_code}{f': {each.error}' if each.error else ''}"


def unready(containers: Sequence[Container]) -> str:
    """The state of a service that is not ready, as one word: the worst of its containers.

    "scaling" when each of them is well, but their number is not what it should be.
    """
    if not containers:
        return "waiting"
    words = [each.health if each.running and each.health else each.state for each in containers]
    order = ("dead", "exited", "restarting", "unhealthy", "created", "starting", "paused")
    return next((word for word in order if word in words), "scaling")


def explain(verdict: Verdict) -> OpsError:
    """The error for a failed verdict: who, why, what its last probe and its log said."""
    parts = [f"{verdict.culprit} {verdict.reason}."]
    if verdict.container:
        if verdict.container.health != "healthy" and verdict.container.health_log:
            parts.append("Its last health check said:")
            parts.extend(f"  {line}" for line in verdict.container.health_log[-1].splitlines()[-5:])
        if lines := engine.logs(verdict.container.id, 15):
            parts.append(f"The last lines of {verdict.container.name}:")
            parts.extend(f"  {shorten(line)}" for line in lines)
            parts.extend(hints("\n".join(lines)))
    remedy = "What is healthy keeps running. Fix the cause and run the same command again."
    return OpsError("\n".join(parts), remedy, verdict.code)


# What an image that was not made for it says of a read-only root file system, and of missing capabilities.
_HINTS = {
    "Read-only file system": (
        "It writes outside its volumes and /tmp. In its Compose entry: a tmpfs for each folder that it writes to, or"
        " read_only: false."
    ),
    "Operation not permitted|Permission denied": (
        "It may lack a capability. An image that starts as root and changes its user needs cap_add: [CHOWN, SETGID,"
        " SETUID]; one that writes as root to folders of that user needs DAC_OVERRIDE too."
    ),
}


def hints(log: str) -> list[str]:
    """What helps, for what a log says of how the container is confined."""
    return [hint for said, hint in _HINTS.items() if re.search(said, log, re.IGNORECASE)]


def demand(verdict: Verdict) -> None:
    """Raise the error of a failed verdict."""
    if verdict.status == FAILED:
        raise explain(verdict)


def shorten(line: str) -> str:
    """A line of a log with its middle left out when it is long: what happened stands first, why it did last."""
    half = LINE_LENGTH // 2
    return line if len(line) <= LINE_LENGTH else f"{line[:half]} … {line[-half:]}"


def rows_table(rows: Sequence[Row], title: str = "") -> Any:
    """A table of services for the live display."""
    return console.table(
        ("SERVICE", "READY", "STATE", "AFTER"),
        [
            (
                row.service,
                f"{row.ready}/{row.wanted}",
                f"[{COLOURS.get(row.state, 'yellow')}]{row.state}[/]",
                console.duration(row.since) if row.since else "",
            )
            for row in rows
        ],
        title,
    )


def watch(
    gate: Gate,
    look: Callable[[], list[Container]],
    timeout: float,
    work: Work | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    patient: bool = False,
    pause: float = LOOK_SECONDS,
) -> Verdict:
    """Look until the gate has a verdict, drawing a live table on a terminal and a line for every change elsewhere.

    look: reads the containers. timeout: seconds. work: Compose, while it is still at it; a non-zero exit code of it is
    the caller's to report, and ends the watch. patient: a failure does not end the watch while that works. pause:
    seconds between two looks. Returns the last verdict.
    """
    began = clock()
    shown: dict[str, str] = {}
    with _display() as draw:
        while True:
            code = work.poll() if work else 0
            containers = look()
            verdict = gate.observe(containers, clock(), working=code is None)
            if verdict.status == WAITING and clock() - began > timeout:
                verdict = gate.late(containers, verdict, timeout)
            elapsed = clock() - began
            if draw:
                draw(rows_table(verdict.rows, f"{elapsed:.0f} s of at most {timeout:.0f} s"))
            else:
                _print_changes(verdict.rows, shown, elapsed)
            bears = patient and code is None and elapsed <= timeout
            if code or (verdict.status != WAITING and not (verdict.status == FAILED and bears)):
                return verdict
            sleep(pause)


def hold(gate: Gate, look: Callable[[], list[Container]], until: Callable[[], bool]) -> Verdict:
    """Go on looking at what is ready, until `until()` says that it is enough or something fails; the last verdict."""
    while True:
        enough = until()
        verdict = gate.observe(look(), time.monotonic())
        if verdict.status == FAILED or enough:
            return verdict
        time.sleep(LOOK_SECONDS)


def _display() -> Any:
    """A context that gives a function to draw with on a terminal, None elsewhere."""
    if not console.is_terminal():
        return nullcontext()
    from contextlib import contextmanager

    from rich.live import Live

    @contextmanager
    def live() -> Any:
        with Live(console=console.console(), auto_refresh=False, transient=True) as display:
            yield lambda drawn: display.update(drawn, refresh=True)

    return live()


def _print_changes(rows: Sequence[Row], shown: dict[str, str], elapsed: float) -> None:
    first = not shown
    for row in rows:
        text = f"{row.state} {row.ready}/{row.wanted}"
        # What was well before anything began is not news.
        if first and row.done:
            shown[row.service] = text
        if shown.get(row.service) != text:
            shown[row.service] = text
            console.say(f"  {elapsed:5.1f} s  {row.service:<24} {text}")
