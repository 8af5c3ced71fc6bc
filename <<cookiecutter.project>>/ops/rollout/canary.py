"""A canary: some containers of the new release get a share of the requests, until a person promotes or aborts it.

Nothing about it is written down: its containers are those that have the name NAME.canary in the network `serving`, and
HAProxy's weights stand in the routes that it reads. nginx knows only the others, so without HAProxy there is no canary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.engine import Container
from ops.parts.haproxy import pool
from ops.parts.haproxy.configuration import USUAL_WEIGHT
from ops.parts.haproxy.pool import Server
from ops.rollout import plan
from ops.rollout.plan import Phase, Plan
from ops.rollout.roll import Move, drain_limits, stop, weigh
from ops.stack import pools
from ops.stack.model import Stack

# What a canary may have beside the rollout of services: images, and migrations, which only add.
_BESIDE = {*plan.FIRST, Phase.JOBS, Phase.ROLLOUT}
_MOST_WEIGHT = 256  # that HAProxy knows
_LOOK_SECONDS = 10.0
# It is aborted by itself when it answers so many errors, and so much more of its requests fail than of the others.
_FEW_ERRORS, _WORSE = 5, 0.01


def share(text: str) -> int:
    """The percentage that was typed. Raises OpsError (usage) for anything but 1 to 50."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 50):
        raise OpsError(f'"{text}" is not a share for a canary: give a percentage from 1 to 50.', code=USAGE)
    return int(text)


def one_of(**options: object) -> None:
    """Raise OpsError (usage) when more than one of these options is given."""
    if len(given := [name for name, each in options.items() if each]) > 1:
        raise OpsError(f"--{given[0]} and --{given[1]} cannot be used together: give one of them.", code=USAGE)


def minutes(text: str, canary: str) -> float:
    """The minutes that were typed, 0 for "". Raises OpsError (usage) for another text, and without a canary."""
    if not text:
        return 0
    if not canary:
        raise OpsError("--minutes is for a canary: give --canary too.", code=USAGE)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1440):
        raise OpsError(f'"{text}" is not a time for a canary: give minutes, from 1 to 1440.', code=USAGE)
    return float(text)


def of(declared: Stack, containers: Iterable[Container]) -> dict[str, list[Container]]:
    """The containers of a canary by service; empty when none is under way."""
    network = pools.network(declared)
    found: dict[str, list[Container]] = {}
    for each in containers:
        if pools.on_trial(each, network):
            found.setdefault(each.service, []).append(each)
    return found


def refuse(env: Environment, declared: Stack, containers: Iterable[Container]) -> None:
    """Raise OpsError (REFUSED) while a canary is under way: whatever else is changed would decide about it too."""
    if found := of(declared, containers):
        raise OpsError(
            f"A canary of {', '.join(found)} is under way in {env.name}.",
            f"Decide first: invoke deploy --promote --env {env.name}, or invoke deploy --abort --env {env.name}.",
            REFUSED,
        )


def demand(env: Environment, declared: Stack, containers: Iterable[Container]) -> dict[str, list[Container]]:
    """The containers of the canary that is under way. Raises OpsError (REFUSED) when none is."""
    if found := of(declared, containers):
        return found
    raise OpsError(
        f"No canary is under way in {env.name}.",
        f"Begin one: invoke deploy --canary 10 --env {env.name}.",
        REFUSED,
    )


def limited(decided: Plan, share: int) -> Plan:
    """The plan with as many new containers as a share of the requests needs, and without an end for the old ones.

    share: a percentage. Raises OpsError (REFUSED) when the plan does more than rolling services out.
    """
    known = pools.declared(decided.seen.stack)
    others = [each for each in decided.operations if each.phase not in _BESIDE]
    others += [each for each in decided.every(plan.RollOut) if each.subject not in known]
    if others:
        rows = "\n".join(f"  {each.word} {each.subject}" for each in others)
        raise OpsError(
            f"A canary is for services that take requests, and there is more to deploy:\n{rows}",
            "Deploy without --canary, or undo these changes first.",
            REFUSED,
        )
    if not decided.idle and not decided.moves:
        raise OpsError("There is nothing to try: no service changes.", "Deploy without --canary.", REFUSED)

    def small(move: Move) -> Move:
        old = (*move.stay, *move.leave)
        return Move(move.service, old, ceil(move.service.replicas * share / 100))

    operations = tuple(
        plan.TryOut(each.phase, each.subject, each.causes, move=small(each.move))
        if isinstance(each, plan.RollOut)
        else each
        for each in decided.operations
    )
    return replace(decided, operations=operations)


def weights(moves: Sequence[Move], share: int) -> dict[str, int]:
    """What each container of a canary weighs, by service, so that all of them together get the share, a percentage."""

    def weight(move: Move) -> int:
        wanted = USUAL_WEIGHT * len(move.stay) * share / (move.fresh * (100 - share))
        return min(_MOST_WEIGHT, max(1, round(wanted)))

    return {each.service.name: weight(each) for each in moves if each.fresh and each.stay}


def abort(env: Environment, declared: Stack, found: Mapping[str, Sequence[Container]]) -> None:
    """Take the containers of a canary out, wait for their requests, and remove them."""
    containers = [each for mine in found.values() for each in mine]
    haproxy = pool.find(engine.containers(env))
    console.say(f"taking the canary out: {', '.join(found)}")
    if haproxy:
        pool.drain(haproxy, drain_limits(env, declared, containers))
    for name in stop(containers):
        console.warn(f"{name} did not end by itself within its grace period and was killed.")
    weigh(env, declared, haproxy, {})


def compared(servers: Iterable[Server], service: str) -> dict[str, Server]:
    """The old and the new containers of a service, each side as one server: "old" and "new"."""
    sides: dict[str, Server] = {}
    for each in servers:
        if each.pool != service:
            continue
        side = "new" if each.name.startswith("c") else "old"
        before = sides.get(side)
        sides[side] = each if before is None else _together(before, each)
    return sides


def _together(one: Server, other: Server) -> Server:
    requests = one.requests + other.requests
    took = (one.took_ms * one.requests + other.took_ms * other.requests) / requests if requests else 0.0
    return replace(
        one, open=one.open + other.open, errors=one.errors + other.errors, requests=requests, took_ms=round(took, 1)
    )


def rows(servers: Sequence[Server], services: Iterable[str]) -> list[tuple[str, ...]]:
    """Old and new side by side, for a table."""
    found: list[tuple[str, ...]] = []
    for name in services:
        for side, each in sorted(compared(servers, name).items(), reverse=True):
            failed = f"{each.errors} ({each.errors / each.requests:.1%})" if each.requests else "0"
            found.append((name, side, str(each.requests), failed, f"{each.took_ms:.0f} ms"))
    return found


def show(env: Environment, declared: Stack, containers: Sequence[Container]) -> None:
    """Print how the canary that is under way does, if there is one."""
    found, haproxy = of(declared, containers), pool.find(containers)
    if not found or not haproxy:
        return
    console.say(
        f"\na canary is under way: {', '.join(each.name for mine in found.values() for each in mine)}", "yellow"
    )
    columns = ("SERVICE", "SIDE", "REQUESTS", "ERRORS", "TIME")
    console.print_table(columns, rows(pool.servers(haproxy), found))
    console.say(f"`invoke deploy --promote --env {env.name}` or `invoke deploy --abort --env {env.name}` ends it")


def worse(servers: Sequence[Server], services: Iterable[str]) -> str:
    """The first service whose new containers fail clearly more often than the old ones; "" when there is none."""
    for name in services:
        sides = compared(servers, name)
        if not {"old", "new"} <= sides.keys():
            continue
        old, new = (each.errors / each.requests if each.requests else 0.0 for each in (sides["old"], sides["new"]))
        if sides["new"].errors >= _FEW_ERRORS and new > old + _WORSE:
            return name
    return ""


def watch(
    env: Environment,
    declared: Stack,
    seconds: float,
    check: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Look at a canary for so many seconds; the service that does worse, which ends it early, or ""."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        check()
        sleep(min(_LOOK_SECONDS, max(0.0, ends - time.monotonic())))
        containers = engine.containers(env)
        if (haproxy := pool.find(containers)) and (name := worse(pool.servers(haproxy), of(declared, containers))):
            return name
    return ""
