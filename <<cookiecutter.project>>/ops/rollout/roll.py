"""Rollouts: replace the containers of services that serve, without losing a request.

New containers start beside the old ones, on probation: no requests, little processor time, no restart when they end.
Those that become healthy, answer a smoke request correctly and stay healthy for a while are accepted. Then nginx sends
requests to the new ones only; the old ones finish theirs and are stopped by id. Until the old ones are stopped, any
failure leads back to them. All services of a rollout take these steps together, so it lasts one start-up and one
drain, however many there are.

Measured against other orders in the field's tools: see docs/architecture.md and the template's tests/bench/RESULTS.md.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import console, undo
from ops.base.environments import Environment
from ops.base.errors import SMOKE, OpsError
from ops.engine import Container
from ops.parts.nginx import edge
from ops.parts.nginx.edge import Smoke
from ops.rollout import gate
from ops.stack.model import Service
from ops.state.drift import PROBATION

# Setting and default, in seconds: how long new containers must stay well before they get requests.
STEADY = ("ROLLOUT_STEADY_SECONDS", 5)
# A container on probation yields to those that serve; Docker's own weight is 1024.
_PROBATION_SHARES, _FULL_SHARES = 32, 1024
# But not for ever: where the others leave too little, it gets its full weight, or it would never become ready.
_YIELD_SECONDS = 90.0
_KILLED = 137  # 128 + SIGKILL: it did not end within its grace period

_BACK = "The old containers keep serving; the new ones were removed. Fix the cause and run the same command again."
_NOT_BACK = "Running the same command again finishes the clean-up. See what runs: invoke status"


@dataclass(frozen=True)
class Move:
    """What happens to one service: containers that stay, how many are added, containers that leave."""

    service: Service
    stay: tuple[Container, ...] = ()
    fresh: int = 0
    leave: tuple[Container, ...] = ()

    def __str__(self) -> str:
        parts = (
            f"{self.fresh} new" if self.fresh else "",
            f"{len(self.leave)} to go" if self.leave else "",
            f"{len(self.stay)} stay" if self.stay else "",
        )
        return f"{self.service.name} ({', '.join(part for part in parts if part)})"


def move(service: Service, containers: Sequence[Container], current: Callable[[Container], bool]) -> Move:
    """The move that leads to the declared number of containers. current: whether a container is as declared.

    Those that serve well and are as declared stay, the oldest numbers first; whatever else there is leaves.
    """
    fit = [each for each in containers if each.ready and current(each)]
    stay = tuple(fit[: service.replicas])
    kept = {each.id for each in stay}
    return Move(
        service,
        stay,
        service.replicas - len(stay),
        tuple(each for each in containers if each.id not in kept),
    )


@dataclass
class Rollout:
    """One rollout. document: the resolved configuration that new containers are made from (None: the Compose files).
    entries: its services as Compose describes them. check: called between steps; raises when the right to change the
    environment is lost. not_undone: steps of the way back that failed, in words."""

    env: Environment
    document: Path | None
    entries: Mapping[str, Mapping[str, Any]]
    moves: Sequence[Move]
    timeout: float
    check: Callable[[], None] = lambda: None
    doing: str = "preparing the rollout"
    not_undone: list[str] = field(default_factory=list)
    _nginx: Container | None = None
    _before: frozenset[str] = frozenset()
    _new: list[str] = field(default_factory=list)
    _pinned: dict[str, list[str]] = field(default_factory=dict)
    _switched: bool = False
    _yield_until: float = math.inf

    def run(self) -> None:
        """Roll out. Raises OpsError with the code of what went wrong; the old containers then serve as before."""
        self._nginx = edge.find(engine.containers(self.env))
        try:
            if any(each.fresh for each in self.moves):
                self._pin()
                self._create()
                self._start()
                self._prove()
                self._take_in()
            self._switch()
            self._drain()
        except BaseException as error:
            self.not_undone = self._undo()
            if isinstance(error, OpsError):
                error.remedy = _BACK
                if self.not_undone:
                    error.message += f"\nThe way back failed too: {'; '.join(self.not_undone)}."
                    error.remedy = _NOT_BACK
            raise
        self._stop()
        self._release()

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, text: str) -> None:
        self.check()
        self.doing = text
        console.say(text)

    def _pin(self) -> None:
        """Keep requests on those that serve now: by name, nginx would find the new ones as soon as they run."""
        self.check()
        self._pinned = serving(self.moves, engine.containers(self.env), self._nginx)
        self._point(self._pinned)

    def _create(self) -> None:
        adding = [each for each in self.moves if each.fresh]
        self._before = frozenset(each.id for each in engine.containers(self.env))
        totals = {each.service.name: len(each.stay) + len(each.leave) + each.fresh for each in adding}
        try:
            engine.compose(self.env, *create_argv(totals), document=self.document, timeout=self.timeout)
        finally:
            self._find_new()
        engine.docker("update", "--restart", PROBATION, "--cpu-shares", str(_PROBATION_SHARES), *self._new)

    def _start(self) -> None:
        """Start the new ones and wait until they are healthy: as many at a time as the engine has processors.

        More would only make each other slow, and be asked for their health all the while. Raises OpsError when one does
        not become healthy.
        """
        if self._nginx:
            edge.settle(self._nginx)
        self._step(f"starting beside the old ones: {', '.join(str(each) for each in self.moves if each.fresh)}")
        self._yield_until = time.monotonic() + _YIELD_SECONDS
        waves = list(batched(self._new, engine.processors()))
        for number, wave in enumerate(waves, start=1):
            self.check()
            engine.docker("start", *wave, timeout=self.timeout)
            if number < len(waves):
                self._await_health(wave)
        self._await_health(self._new)

    def _await_health(self, ids: Sequence[str]) -> None:
        judge = gate.Gate(self._expected(ids), restarts_allowed=0)
        verdict = gate.watch(judge, lambda: [each for each in self._look() if each.id in ids], self.timeout)
        gate.demand(verdict)

    def _expected(self, ids: Sequence[str]) -> dict[str, Service]:
        """Services of these new containers, each with as many replicas as there are among them."""
        names = [each.service for each in engine.containers(self.env) if each.id in ids]
        return {
            each.service.name: replace(each.service, replicas=names.count(each.service.name))
            for each in self.moves
            if each.service.name in names
        }

    def _prove(self) -> None:
        """Check that the new ones answer correctly and stay healthy for a while. Raises OpsError."""
        steady_until = time.monotonic() + self.env.number(*STEADY)
        self._step("sending each new one a smoke request")
        self._smoke()
        judge = gate.Gate(self._expected(self._new), restarts_allowed=0)
        verdict = gate.hold(judge, self._look, lambda: time.monotonic() >= steady_until)
        gate.demand(verdict)

    def _smoke(self) -> None:
        for each in self._look():
            smoke = Smoke.parse(each.labels.get("ops.smoke", ""))
            address = address_for(each, self._nginx)
            if smoke and self._nginx and address and (wrong := edge.ask(self._nginx, address, smoke)):
                raise gate.explain(gate.Verdict(gate.FAILED, (), each.service, wrong, each, SMOKE))

    def _take_in(self) -> None:
        """End the probation: from here on they are restarted when they end, and get their share of the processor."""
        new = self._look()
        for each in self.moves:
            entry = self.entries[each.service.name]
            if ids := [found.id for found in new if found.service == each.service.name]:
                shares = str(entry.get("cpu_shares") or _FULL_SHARES)
                engine.docker("update", "--restart", entry.get("restart", "no"), "--cpu-shares", shares, *ids)

    def _switch(self) -> None:
        going = {each.id for move in self.moves for each in move.leave}
        remaining = [each for each in engine.containers(self.env) if each.id not in going]
        self._step(f"switching requests over: {', '.join(each.service.name for each in self.moves)}")
        self._switched = True
        self._point(serving(self.moves, remaining, self._nginx))

    def _drain(self) -> None:
        if not self._nginx:
            return
        self._step("draining the old ones")
        judge = gate.Gate(self._expected(self._new), restarts_allowed=0)

        def watch() -> None:
            if self._new:
                gate.demand(judge.observe(self._look(), time.monotonic()))

        if not edge.drain(self._nginx, watch=watch):
            console.warn("Some requests were still open after the time to drain; nginx closes them.")

    def _stop(self) -> None:
        leaving = [each for move in self.moves for each in move.leave]
        if leaving:
            self._step(f"stopping {len(leaving)} old containers")
            for name in stop(leaving):
                console.warn(f"{name} did not end by itself within its grace period and was killed.")

    def _find_new(self) -> None:
        mine = {each.service.name for each in self.moves if each.fresh}
        self._new = [
            each.id for each in engine.containers(self.env) if each.service in mine and each.id not in self._before
        ]

    def _undo(self) -> list[str]:
        """Back to the old containers, as they were before; what of it failed, in words."""
        begun = bool(self._before)
        steps: list[undo.Step] = []
        if self._switched:
            steps += [
                ("sending requests to the old containers", self._point_back),
                ("draining the new ones", self._leave),
            ]
        if begun:
            steps.append(("removing the new containers", self._discard))
        steps.append(("letting nginx find services by their names", self._release))
        with contextlib.suppress(OSError):
            console.say("going back to the old containers" if begun else "nothing was changed yet")
        return undo.every(steps)

    def _point_back(self) -> None:
        self._point(serving(self.moves, self._old(), self._nginx))

    def _leave(self) -> None:
        if self._nginx:
            edge.drain(self._nginx)

    def _discard(self) -> None:
        """Remove the new containers. Raises OpsError naming those that are still there."""
        # The step that made them may have failed before it could find them.
        with contextlib.suppress(OpsError):
            self._find_new()
        if self._new:
            done = engine.docker("rm", "--force", *self._new, check=False)
            if left := engine.look(self._new):
                raise OpsError(f"{', '.join(each.name for each in left)}: {done.stderr.strip() or 'still there'}")

    # ── looking and pointing ──────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> list[Container]:
        """The new containers. Meanwhile whoever serves may have come back with another address: follow it."""
        watched = [] if self._switched else [each.id for move in self.moves for each in (*move.stay, *move.leave)]
        containers = engine.look([*self._new, *watched])
        if time.monotonic() > self._yield_until:
            self._yield_until = math.inf
            engine.docker("update", "--cpu-shares", str(_FULL_SHARES), *self._new)
        if self._pinned and not self._switched:
            old = [each for each in containers if each.id not in self._new]
            now = serving(self.moves, old, self._nginx)
            if now != self._pinned and all(now.values()):
                self._point(now)
                self._pinned = now
        return [each for each in containers if each.id in self._new]

    def _old(self) -> list[Container]:
        return [each for each in engine.containers(self.env) if each.id not in self._new]

    def _point(self, wanted: Mapping[str, Sequence[str]]) -> None:
        if self._nginx:
            edge.point(self._nginx, wanted)

    def _release(self) -> None:
        if self._nginx:
            edge.release(self._nginx)


def serving(moves: Sequence[Move], containers: Sequence[Container], nginx: Container | None) -> dict[str, list[str]]:
    """Addresses by service of those containers that can take requests now; the name where there is none."""
    return {
        each.service.name: [
            address
            for container in containers
            if container.service == each.service.name
            and container.running
            and (address := address_for(container, nginx))
        ]
        for each in moves
    }


def address_for(container: Container, nginx: Container | None) -> str:
    """The address under which nginx reaches a container; "" when they share no network."""
    shared = sorted(container.addresses.keys() & (nginx.addresses.keys() if nginx else set()))
    return container.addresses[shared[0]] if shared else ""


def create_argv(totals: Mapping[str, int]) -> list[str]:
    """The Compose arguments that create containers beside those that exist, and start none. totals: by service, with
    the existing ones."""
    fixed = ("up", "--no-start", "--no-deps", "--no-recreate", "--no-build", "--pull", "never", "--quiet-pull")
    scales = (part for name, total in totals.items() for part in ("--scale", f"{name}={total}"))
    return [*fixed, *scales, *totals]


def stop(containers: Sequence[Container]) -> list[str]:
    """Stop and remove containers that get no requests any more; the names of those that had to be killed.

    Their first signal asks them to drain. That has been done at the edge, so the second, of `docker stop`, tells them
    not to wait for it; what is open they finish all the same.
    """
    running = [each.id for each in containers if each.running]
    if running:
        engine.docker("kill", "--signal", "TERM", *running, check=False)
        engine.docker("stop", *running, check=False, timeout=None)
    killed = [
        each["Name"].removeprefix("/") for each in engine.inspect(running) if each["State"]["ExitCode"] == _KILLED
    ]
    engine.docker("rm", "--force", *(each.id for each in containers))
    return killed


def batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Slices of at most that many."""
    return (items[start : start + size] for start in range(0, len(items), size))
