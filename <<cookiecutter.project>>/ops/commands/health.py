"""Health: what every part of the stack answers right now, asked all at once.

Nothing here trusts what was measured earlier: each part is asked by its own probes (ops/parts). What Docker thinks of
the containers is reported beside that. One process a probe, all of them side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.engine import Container
from ops.parts import jobs, registry
from ops.parts.probes import Check, Probe, Seen, Status
from ops.stack import model
from ops.stack.model import Service, Stack
from ops.state import elsewhere, lock, swap

# A container that was restarted longer ago than this has settled.
RESTART_SECONDS = 600
# Titles of what no part asks for.
_STACK, _CONTAINERS = "Stack", "Containers"


@dataclass(frozen=True)
class Report:
    """Everything that was asked, by the title of its part, and how long all of it took."""

    environment: str
    groups: dict[str, tuple[Check, ...]]
    seconds: float = field(default=0.0)

    @property
    def checks(self) -> tuple[Check, ...]:
        """All answers, in the order of the report."""
        return tuple(check for checks in self.groups.values() for check in checks)

    @property
    def healthy(self) -> bool:
        """Warnings do not count: the stack serves."""
        return all(check.status != "fail" for check in self.checks)


def report(env: Environment) -> Report:
    """Ask everything. Raises OpsError only when Docker itself cannot be asked."""
    began = time.monotonic()
    # Threads only wait here; more of them than probes cost nothing.
    with engine.pool(64) as pool:
        declaration = pool.submit(model.load, env)
        containers = engine.containers(env)
        seen = Seen(env, containers, declaration)
        if not any(container.running for container in containers):
            assert seen.declared
            return Report(env.name, {_STACK: (_not_running(env, containers),)}, time.monotonic() - began)
        asked = [(part.title, pool.submit(timed, probe)) for part, probe in registry.probes(seen)]
        found: dict[str, list[Check]] = {_CONTAINERS: list(check_containers(seen.declared, containers, time.time()))}
        found[_CONTAINERS] += check_folders(env, containers)
        found[_CONTAINERS] += check_restore(env)
        for part in registry.PARTS:
            found[part.title] = []
        for title, future in asked:
            found[title].extend(future.result())
    groups = {title: tuple(sorted(checks, key=lambda check: check.target)) for title, checks in found.items() if checks}
    return Report(env.name, groups, time.monotonic() - began)


# ── presenting ────────────────────────────────────────────────────────────────────────────────────────────────────────

_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def as_json(result: Report) -> dict[str, Any]:
    """The report for programs. Keys are only ever added."""
    return {
        "environment": result.environment,
        "healthy": result.healthy,
        "seconds": round(result.seconds, 3),
        "checks": [{**asdict(check), "seconds": round(check.seconds, 3)} for check in result.checks],
    }


def show(result: Report) -> None:
    """The report for people."""
    from rich.markup import escape

    if [*result.groups] == [_STACK]:
        console.say(result.checks[0].detail, "red")
        return
    rows = []
    for title, checks in result.groups.items():
        for number, check in enumerate(checks):
            taken = f"[dim]{check.seconds * 1000:.0f} ms[/]" if check.seconds else ""
            group = f"[bold]{title}[/]" if number == 0 else ""
            rows.append((group, check.target, _MARKS[check.status], escape(check.detail), taken))
    console.print_table(("", "", "", "", ""), rows)
    counts = {status: sum(check.status == status for check in result.checks) for status in _MARKS}
    warnings = f"{counts['warn']} warning{'' if counts['warn'] == 1 else 's'}"
    words = f"{counts['ok']} ok, {warnings}, {counts['fail']} failed"
    verdict = "healthy" if result.healthy else "unhealthy"
    console.say(
        f"{result.environment} is {verdict}: {words} ({console.duration(result.seconds)})",
        "green" if result.healthy else "red",
    )


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def timed(probe: Probe) -> list[Check]:
    """The checks of a probe with its time; one that raises or finds nothing to ask has failed."""
    began = time.monotonic()
    try:
        checks = list(probe.ask())
    except OpsError as error:
        checks = [Check(probe.name, probe.target, "fail", error.message)]
    # A part that answers nonsense must not hide what the others say.
    except Exception as error:
        checks = [Check(probe.name, probe.target, "fail", f"unexpected answer: {error or type(error).__name__}")]
    seconds = time.monotonic() - began
    return [replace(check, seconds=seconds) for check in checks]


# ── containers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _not_running(env: Environment, containers: list[Container]) -> Check:
    state = f"all {len(containers)} containers are stopped" if containers else "there are no containers"
    return Check(
        "stack", env.project, "fail", f"{env.name} is not running: {state}. Start it: invoke deploy --env {env.name}"
    )


def check_restore(env: Environment) -> Iterator[Check]:
    """A failure while a restore that was killed has left old and new data mixed."""
    try:
        swap.refuse(env)
    except OpsError as error:
        # One that is at work holds the lock.
        if not lock.holder(env):
            yield Check("restore", env.project, "fail", f"{error.message} {error.remedy}")


def check_folders(env: Environment, containers: list[Container]) -> Iterator[Check]:
    """A warning for each service whose containers run on files of a folder that was deleted."""
    for each in elsewhere.homeless(containers, env.project_dir):
        yield Check(
            "folder",
            f"{each.service}-{each.number}",
            "warn",
            f"mounts files of {each.folder}, which is gone: it will not start again. Replace it: invoke deploy"
            f" --env {env.name}, from a folder that stays",
        )


def check_containers(declared: Stack, containers: list[Container], now: float) -> Iterator[Check]:
    """Docker's view: every replica that is wanted runs and is healthy. `now` in seconds since the epoch."""
    found: dict[str, list[Container]] = {}
    for each in containers:
        found.setdefault(each.service, []).append(each)
    yield from jobs.checks(declared, containers, now)
    for service in declared.services.values():
        here = found.pop(service.name, [])
        if service.name in declared.scheduled:
            continue
        for each in here:
            yield _check_container(each, service, now)
        # Those that exist and do not run have just said so themselves.
        if not service.one_shot and len(here) < service.replicas:
            count = sum(each.running for each in here)
            yield Check("container", service.name, "fail", f"{count} of {service.replicas} wanted are running")
        elif service.one_shot and not here and service.replicas and not service.on_demand:
            yield Check("container", service.name, "fail", "never ran")
    for service_name, here in found.items():
        for each in here:
            yield Check("container", f"{service_name}-{each.number}", "warn", "its service is switched off or unknown")


def _check_container(each: Container, service: Service, now: float) -> Check:
    target = f"{each.service}-{each.number}"
    status: Status = "ok"
    if each.running:
        detail = each.health or "running"
        if each.health == "unhealthy":
            status = "fail"
            last = each.health_log[-1].splitlines() if each.health_log and each.health_log[-1] else []
            # Services answer with a whole document; their own readiness is asked anyway.
            detail = f"unhealthy: {last[-1][:80]}" if last else "unhealthy"
        elif each.health == "starting":
            status = "warn"
        if each.restarts:
            ago = now - each.started
            detail += f", restarted {each.restarts} times, last {console.duration(ago)} ago"
            if status == "ok" and ago < RESTART_SECONDS:
                status = "warn"
    elif service.one_shot and each.state == "exited":
        status = "ok" if each.exit_code == 0 else "fail"
        detail = "done" if each.exit_code == 0 else f"failed with exit code {each.exit_code}"
    else:
        status, detail = "fail", f"{each.state}, exit code {each.exit_code}"
        if each.oom_killed:
            detail += ", out of memory"
        if each.error:
            detail += f": {each.error}"
    return Check("container", target, status, detail)
