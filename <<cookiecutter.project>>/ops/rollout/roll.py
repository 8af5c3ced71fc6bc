"""Rollouts: replace the containers of services that serve, without losing a request.

New containers start beside the old ones, on probation: outside the network of those that get requests, with little
processor time, without a restart when they end. Those that become ready, answer a smoke request correctly and stay
well for a while are let into that network. Then HAProxy chooses the new ones only; the old ones finish what they have
and are stopped by id. Until the old ones are stopped, any failure leads back to them. All services of a rollout take
these steps together, so it lasts one start-up and one drain, however many there are. Nothing is reloaded.

Measured against other orders in the field's tools: see docs/architecture.md and the template's tests/bench/RESULTS.md.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ops import engine
from ops.base import console, undo
from ops.base.environments import Environment
from ops.base.errors import SMOKE, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import routes
from ops.parts.haproxy import pool
from ops.parts.nginx import edge
from ops.parts.nginx.edge import Smoke
from ops.rollout import gate
from ops.stack import labels, pools
from ops.stack.model import Service, Stack
from ops.stack.pools import Pool
from ops.state.drift import PROBATION

# Setting and default, in seconds: how long new containers must stay well before they get requests.
STEADY = ("ROLLOUT_STEADY_SECONDS", 5)
# Setting and default, in seconds: how long requests that are open in the old containers are waited for.
DRAIN = ("ROLLOUT_DRAIN_SECONDS", 60)
# Between two looks at what is open; each takes the deployer a tenth of a second.
_DRAIN_PAUSE = 0.2
# A container on probation yields to those that serve; Docker's own weight is 1024.
_PROBATION_SHARES, _FULL_SHARES = 32, 1024
# But not for ever: where the others leave too little, it gets its full weight, or it would never become ready.
_YIELD_SECONDS = 90.0
# Between two looks at those that start: nobody serves from them yet, but a deploy waits for them.
_START_PAUSE = 0.2
# For a healthy container to answer on its port too.
_LISTEN_SECONDS = 10.0
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
    """One rollout. document: the resolved configuration that new containers are made from (None: the Compose files);
    declared: the stack in it. canary: by service, what a container weighs that gets a share of the requests, for a
    trial; empty for any other rollout. check: called between steps; raises when the right to change the environment is
    lost. not_undone: steps of the way back that failed, in words."""

    env: Environment
    document: Path | None
    declared: Stack
    moves: Sequence[Move]
    timeout: float
    check: Callable[[], None] = lambda: None
    canary: Mapping[str, int] = field(default_factory=dict)
    doing: str = "preparing the rollout"
    not_undone: list[str] = field(default_factory=list)
    _nginx: Container | None = None
    _haproxy: Container | None = None
    _before: frozenset[str] = frozenset()
    _new: list[str] = field(default_factory=list)
    _joined: bool = False
    _yield_until: float = math.inf

    def run(self) -> None:
        """Roll out. Raises OpsError with the code of what went wrong; the old containers then serve as before."""
        containers = engine.containers(self.env)
        self._nginx, self._haproxy = edge.find(containers), pool.find(containers)
        self.check()
        try:
            self._reset()
            if any(each.fresh for each in self.moves):
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
        self._reset()

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, text: str) -> None:
        self.check()
        self.doing = text
        console.say(text)

    def _create(self) -> None:
        adding = [each for each in self.moves if each.fresh]
        count = sum(each.fresh for each in adding)
        self._step(f"creating {count} container{'s' if count > 1 else ''} beside those that serve")
        self._before = frozenset(each.id for each in engine.containers(self.env))
        totals = {each.service.name: len(each.stay) + len(each.leave) + each.fresh for each in adding}
        try:
            engine.compose(self.env, *create_argv(totals), document=self.document, timeout=self.timeout)
        finally:
            self._find_new()
        pool.keep_out([each for each in engine.look(self._new) if each.service in self._pools], self._network)
        engine.docker("update", "--restart", PROBATION, "--cpu-shares", str(_PROBATION_SHARES), *self._new)

    def _start(self) -> None:
        """Start the new ones and wait until they are healthy: as many at a time as the engine has processors.

        More would only make each other slow, and be asked for their health all the while. Raises OpsError when one does
        not become healthy.
        """
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
        verdict = gate.watch(judge, lambda: self._asked(ids), self.timeout, pause=_START_PAUSE)
        if verdict.container and (wanting := self._wanting(verdict.container)):
            verdict = replace(verdict, reason=f"{verdict.reason}: it {wanting}")
        gate.demand(verdict)

    def _asked(self, ids: Sequence[str]) -> list[Container]:
        """Some new containers as they are now. The engine asks each for its health every two seconds; one that answers
        nginx that it is ready need not wait for that, and one without a health check is asked by nginx alone."""
        found = [each for each in self._look() if each.id in ids]
        urls = {
            each.id: url
            for each in found
            if each.running and each.health in {"starting", ""} and self._is_asked(each) and (url := self._url(each))
        }
        replies = edge.replies(self._nginx, list(urls.values())) if self._nginx and urls else {}

        def asked(each: Container) -> Container:
            if each.id not in urls:
                return each
            wanting = replies.get(urls[each.id], edge.Reply()).wanting(self._pools[each.service])
            return replace(each, health="starting" if wanting else "healthy")

        return [asked(each) for each in found]

    def _is_asked(self, each: Container) -> bool:
        """Whether its readiness is a question that nginx can ask."""
        known = self._pools.get(each.service)
        return known is not None and known.ready != pools.HEALTHCHECK

    def _wanting(self, each: Container) -> str:
        """What a running container lacks to take requests, as the end of a sentence; "" when nobody can tell."""
        if not (self._nginx and each.running and each.health != "unhealthy" and (url := self._url(each))):
            return ""
        return edge.replies(self._nginx, [url]).get(url, edge.Reply()).wanting(self._pools[each.service])

    def _url(self, each: Container) -> str:
        """Where nginx asks a container whether it is ready; "" when they share no network or it takes no requests."""
        known = self._pools.get(each.service)
        return f"{base}{known.path or '/'}" if known and (base := self._base(each)) else ""

    def _base(self, each: Container) -> str:
        """Where nginx reaches a container; "" when they share no network or it takes no requests."""
        address = edge.address(each, self._nginx) if self._nginx else ""
        known = self._pools.get(each.service)
        return f"http://{address}:{known.port}" if address and known else ""

    def _expected(self, ids: Sequence[str]) -> dict[str, Service]:
        """Services of these new containers, each with as many replicas as there are among them."""
        found = engine.look(ids)
        names = [each.service for each in found]
        # Health is what says that they are ready: the engine's, or what they answer nginx.
        asked = {each.service for each in found if self._nginx and self._is_asked(each) and self._url(each)}
        return {
            each.service.name: replace(
                each.service,
                replicas=names.count(each.service.name),
                has_health=each.service.has_health or each.service.name in asked,
            )
            for each in self.moves
            if each.service.name in names
        }

    def _prove(self) -> None:
        """Check that the new ones answer correctly and stay healthy for a while. Raises OpsError."""
        steady_until = time.monotonic() + self.env.number(*STEADY)
        self._step("sending each new one a smoke request")
        self._listening()
        self._smoke()
        judge = gate.Gate(self._expected(self._new), restarts_allowed=0)
        verdict = gate.hold(judge, self._look, lambda: time.monotonic() >= steady_until)
        gate.demand(verdict)

    def _listening(self) -> None:
        """A health check inside a container may be well although nobody listens where requests will come."""

        def wanting() -> list[tuple[Container, str]]:
            return [(each, lack) for each in self._look() if (lack := self._wanting(each))]

        for each, lack in until(wanting, _LISTEN_SECONDS, _START_PAUSE, accept=lambda found: not found):
            raise gate.explain(gate.Verdict(gate.FAILED, (), each.service, lack, each))

    def _smoke(self) -> None:
        for each in self._look():
            smoke, base = Smoke.parse(each.labels.get(labels.SMOKE, "")), self._base(each)
            if smoke and self._nginx and base and (wrong := edge.ask(self._nginx, base, smoke)):
                raise gate.explain(gate.Verdict(gate.FAILED, (), each.service, wrong, each, SMOKE))

    def _take_in(self) -> None:
        """Let the new ones into the network of those that get requests, and end their probation: from here on they are
        restarted when they end, and get their share of the processor."""
        self._step(f"sending requests to the new ones: {', '.join(each.service.name for each in self.moves)}")
        entries = self.declared.document["services"]
        self._joined = True
        if self.canary:
            weigh(self.env, self.declared, self._haproxy, self.canary)
        joining = [each for each in self._look() if each.service in self._pools]
        # One in no other network than this one could not be asked yet: it may still be starting.
        unproven = any(not each.health and self._is_asked(each) and not self._url(each) for each in joining)
        pool.let_in(joining, self._network, entries, canary=bool(self.canary))
        new = self._look()
        for each in self.moves:
            entry = entries[each.service.name]
            if ids := [found.id for found in new if found.service == each.service.name]:
                shares = str(entry.get("cpu_shares") or _FULL_SHARES)
                engine.docker("update", "--restart", entry.get("restart", "no"), "--cpu-shares", shares, *ids)

        if self._haproxy:
            seconds = self.timeout if unproven else pool.CHOSEN_SECONDS
            pool.await_choice(self._haproxy, self._addresses(new), seconds)

    def _switch(self) -> None:
        self.check()
        if self._haproxy and (addresses := self._flat(self._leaving())):
            pool.take_out(self._haproxy, addresses)

    def _drain(self) -> None:
        """Wait for what is open in the old ones, while the new ones must stay well."""
        if not any(each.leave for each in self.moves):
            return
        if not self._haproxy:
            console.warn("HAProxy does not run: requests that are open in the old containers may be lost.")
            return
        self._step("draining the old ones")
        judge = gate.Gate(self._expected(self._new), restarts_allowed=0)
        began = time.monotonic()
        limits = {each.service.name: drain_limit(self.env, each.service) for each in self.moves}
        while counts := self._open():
            if self._new:
                gate.demand(judge.observe(self._look(), time.monotonic()))
            if all(time.monotonic() - began > limits[name][0] for name in counts):
                for name, count in counts.items():
                    seconds, setting = limits[name]
                    console.warn(
                        f"{name}: {count} requests are still open in the old containers after {seconds:.0f} s"
                        f" ({setting}): their clients are told to connect again."
                    )
                return
            time.sleep(_DRAIN_PAUSE)

    def _open(self) -> dict[str, int]:
        """How many requests are open in those that leave, by service; only of services that have some. A container that
        has come back meanwhile, with another address, is taken out again."""
        if not self._haproxy:
            return {}
        addresses = self._addresses(self._leaving())
        every = {address for each in addresses.values() for address in each}
        seen = pool.servers(self._haproxy)
        if any(each.chosen and each.address in every for each in seen):
            pool.take_out(self._haproxy, every)
        counts = {name: sum(each.open for each in seen if each.address in mine) for name, mine in addresses.items()}
        return {name: count for name, count in counts.items() if count}

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
        steps: list[undo.Step] = [("choosing the old containers again", self._reset)]
        if self._joined:
            steps.append(("draining the new containers", self._leave))
        if begun:
            steps.append(("removing the new containers", self._discard))
        if self._joined and self.canary:
            steps.append(("taking their share back", lambda: weigh(self.env, self.declared, self._haproxy, {})))
        steps.append(("resetting HAProxy", self._reset))
        with contextlib.suppress(OSError):
            console.say("going back to the old containers" if begun else "nothing was changed yet")
        return undo.every(steps)

    def _leave(self) -> None:
        """Take the new ones out again, and wait for what is open in them."""
        if self._haproxy:
            pool.drain(self._haproxy, drain_limits(self.env, self.declared, engine.look(self._new)))

    def _discard(self) -> None:
        """Remove the new containers. Raises OpsError naming those that are still there."""
        # The step that made them may have failed before it could find them.
        with contextlib.suppress(OpsError):
            self._find_new()
        if self._new:
            done = engine.docker("rm", "--force", *self._new, check=False)
            if left := engine.look(self._new):
                raise OpsError(f"{', '.join(each.name for each in left)}: {done.stderr.strip() or 'still there'}")

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> list[Container]:
        """The new containers."""
        if time.monotonic() > self._yield_until:
            self._yield_until = math.inf
            engine.docker("update", "--cpu-shares", str(_FULL_SHARES), *self._new)
        return engine.look(self._new)

    def _leaving(self) -> list[Container]:
        """Those that leave, as they are now."""
        return engine.look([each.id for move in self.moves for each in move.leave])

    def _reset(self) -> None:
        if self._haproxy:
            pool.reset(self._haproxy)

    @cached_property
    def _pools(self) -> Mapping[str, Pool]:
        return pools.declared(self.declared)

    @property
    def _network(self) -> str:
        return pools.network(self.declared)

    def _addresses(self, containers: Sequence[Container]) -> dict[str, set[str]]:
        """Where HAProxy finds these, by service."""
        found: dict[str, set[str]] = {}
        for each in containers:
            if address := each.addresses.get(self._network):
                found.setdefault(each.service, set()).add(address)
        return found

    def _flat(self, containers: Sequence[Container]) -> set[str]:
        return {address for addresses in self._addresses(containers).values() for address in addresses}


def drain_limit(env: Environment, service: Service) -> tuple[float, str]:
    """How many seconds requests that are open in the old containers of a service may take, and what says so."""
    if labels.DRAIN in service.labels:
        return float(service.labels[labels.DRAIN]), labels.DRAIN
    return env.number(*DRAIN), DRAIN[0]


def drain_limits(env: Environment, declared: Stack, containers: Iterable[Container]) -> dict[str, float]:
    """`drain_limit` in seconds of each of these containers that HAProxy can find, by its address."""
    network = pools.network(declared)
    found = ((each.addresses.get(network), declared.services[each.service]) for each in containers)
    return {address: drain_limit(env, service)[0] for address, service in found if address}


def weigh(env: Environment, declared: Stack, haproxy: Container | None, canaries: Mapping[str, int]) -> None:
    """Tell HAProxy what the containers of a canary weigh, by service; nothing ends it."""
    routes.write(env, declared, routes.of_edge(routes.render(declared, canaries)))
    if haproxy:
        pool.reload(haproxy)


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
