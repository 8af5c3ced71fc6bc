"""How every service stands."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.commands import inside
from ops.data import scratch
from ops.engine import Container
from ops.parts import jobs, postgres, redis
from ops.parts.haproxy import pool
from ops.parts.haproxy.health import named, why
from ops.parts.nginx import maintenance
from ops.rollout import canary, gate
from ops.rollout.observe import Glance, glance
from ops.stack import model, pools
from ops.state import lock, swap


@dataclass(frozen=True)
class Standing:
    """One service as it stands. uptime: seconds of its youngest container; state as in the gate's table. role: primary
    or standby, as the service itself says; "" for what has none, or gives no answer."""

    service: str
    running: int
    wanted: int
    state: str
    image: str
    uptime: float
    restarts: int
    ports: tuple[str, ...]
    role: str = ""


def standings(
    declared: model.Stack, containers: Sequence[Container], now: float, roles: Mapping[str, str] | None = None
) -> list[Standing]:
    """How every declared service stands, then those that run although nothing declares them. roles: by service."""
    roles = roles or {}
    names = [*declared.services, *sorted({each.service for each in containers} - declared.services.keys())]
    found = [
        _standing(name, declared.services.get(name), [each for each in containers if each.service == name], now)
        for name in names
    ]
    return [replace(each, role=roles.get(each.service, "")) for each in found]


def _standing(name: str, service: model.Service | None, mine: Sequence[Container], now: float) -> Standing:
    running = [each for each in mine if each.running]
    wanted = service.replicas if service else 0
    if service and service.one_shot:
        # A job is not meant to run; how it ended is its state.
        wanted = 0
        state = "never ran" if not mine else _job_state(mine[-1])
    elif service is None:
        state = "not declared"
    elif not mine:
        state = "down" if wanted else "switched off"
    else:
        state = "healthy" if len(running) == wanted and all(each.ready for each in mine) else gate.unready(mine)
    return Standing(
        service=name,
        running=len(running),
        wanted=wanted,
        state=state,
        image=f"{mine[-1].image if mine else service.image if service else ''}",
        uptime=min((now - each.started for each in running), default=0),
        restarts=sum(each.restarts for each in mine),
        ports=tuple(dict.fromkeys(port for each in mine for port in each.ports)),
    )


_RESULTS = {"ok": "green", "warn": "yellow", "fail": "red"}


def show_jobs(scheduled: Sequence[jobs.Standing]) -> None:
    """Print how the scheduled jobs stand, if there are some."""
    if scheduled:
        console.say()
        console.print_table(
            ("JOB", "RESULT", "LAST RUN", "TOOK", "NEXT RUN"),
            [
                (
                    each.service,
                    f"[{_RESULTS[each.status]}]{console.plain(each.result)}[/]",
                    each.last,
                    console.duration(each.took) if each.last else "",
                    each.following,
                )
                for each in scheduled
            ],
        )


def _job_state(job: Container) -> str:
    if job.state != "exited":
        return "never ran" if job.state == "created" else job.state
    return "done" if job.exit_code == 0 else f"failed ({job.exit_code})"


def roles_of(env: Environment, containers: Sequence[Container]) -> dict[str, str]:
    """What every node of a database is at this moment, by service, as far as they say."""
    found = postgres.roles(env, containers)
    with contextlib.suppress(OpsError):
        leading = redis.primary(env, containers).id
        mine = [each for each in redis.nodes(containers) if each.running]
        found.update({each.service: "primary" if each.id == leading else "replica" for each in mine})
    return found


def out_of_pool(seen: Glance) -> list[str]:
    """Containers that HAProxy sends no requests, and why, a line each; none while it cannot be asked."""
    haproxy = pool.find(seen.containers)
    if not haproxy:
        return []
    lines = []
    with contextlib.suppress(OpsError):
        names = named([each for each in seen.containers if each.running], pools.network(seen.stack))
        for each in pool.servers(haproxy):
            if each.address in names and not each.pool.endswith(pool.ANY) and (reason := why(each)):
                lines.append(f"{names[each.address]} {reason}")
    return lines


def status(env: Environment, as_json: bool = False) -> None:
    """Show how every service stands."""
    seen = glance(env)
    now = time.time()
    rows = standings(seen.stack, seen.containers, now, roles_of(env, seen.containers))
    scheduled = jobs.standings(seen.stack, seen.containers, now)
    beside = [each for each in engine.one_offs(env) if each.running]
    if as_json:
        document = {
            "environment": env.name,
            "project": env.project,
            "services": [row.__dict__ for row in rows],
            "jobs": [asdict(each) for each in scheduled],
            "scratch": asdict(server) if (server := scratch.find(env)) else None,
            "one_off": [{"name": each.name, "by": each.labels.get(inside.LABEL, "")} for each in beside],
        }
        console.say(json.dumps(document, indent=2))
        return
    show_standings(rows)
    show_jobs(scheduled)
    for each in beside:
        who = f" by {by}" if (by := each.labels.get(inside.LABEL)) else ""
        console.say(f"\nrun beside {each.service}{who} for {console.duration(now - each.started)}: {each.name}")
    if server := scratch.find(env):
        console.say(f"\nbeside the stack: {server.name} serves {server.content}")
        console.say(f"remove it: invoke restore --drop-scratch --env {env.name}")
    canary.show(env, seen.stack, seen.containers)
    for line in out_of_pool(seen):
        console.say(f"\n{line}", "yellow")
    if began := maintenance.since(env):
        console.say(f"\nmaintenance is {maintenance.describe(began)}: visitors see the maintenance page", "yellow")
    if held := lock.holder(env):
        console.say(f"\nbeing changed: {held.describe(time.time())}", "yellow")
    elif (begun := swap.begun(env)) and begun.swapping:
        console.say(f"\na restore ({begun.holder}) was killed while it swapped the data:", "red")
        console.say(f"invoke restore --undo --env {env.name} puts the old data back", "red")
    if not seen.containers:
        console.say(f"\n{env.name} is down; start it with `invoke deploy --env {env.name}`")


def show_standings(rows: Sequence[Standing]) -> None:
    """Print how services stand."""
    columns = ("SERVICE", "RUNNING", "STATE", "ROLE", "UP", "RESTARTS", "IMAGE", "PORTS")
    cells = [
        (
            row.service,
            f"{row.running}/{row.wanted}",
            f"[{gate.COLOURS.get(row.state, 'yellow')}]{row.state}[/]",
            row.role,
            console.duration(row.uptime) if row.running else "",
            str(row.restarts),
            row.image,
            " ".join(row.ports),
        )
        for row in rows
    ]
    # A name that is cut off says less than a column that is left out; --json has all of them.
    console.print_table(*console.fitting(columns, cells, ("IMAGE", "RESTARTS", "PORTS"), console.width()))
