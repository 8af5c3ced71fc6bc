"""What happens to a stack between deploys: stop, down, status, logs, and the configuration it resolves to."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ops import engine
from ops.base import console, findings
from ops.base.environments import Environment, relative
from ops.base.errors import FAILED, USAGE, OpsError
from ops.engine import Container
from ops.parts import postgres, redis
from ops.parts.nginx import edge, maintenance
from ops.rollout import gate, preflight
from ops.rollout.compose_up import compose_failed
from ops.rollout.observe import glance
from ops.stack import model
from ops.state import elsewhere, lock, memory, store

_PROJECT_LABEL = "label=com.docker.compose.project="


# ── stop, down ────────────────────────────────────────────────────────────────────────────────────────────────────────


def stop(env: Environment) -> None:
    """Stop every container of an environment, also of services that are switched off. Nothing is lost."""
    running = [each for each in engine.containers(env) if each.state in {"running", "restarting", "paused"}]
    if not running:
        console.say(f"nothing to stop: no container of {env.name} runs")
        return
    with lock.hold(env, f"stop --env {env.name}"), console.activity(f"stopping {len(running)} containers") as tick:
        drain(env)
        log = env.state_dir / "stop.log"
        argv = engine.compose_argv(env, "stop", all_profiles=True)
        if engine.logged(argv, log, tick, **engine.surroundings(env)):
            raise compose_failed(env, log)
        # Those of a service that no Compose file declares any more.
        left = [each.id for each in engine.containers(env) if each.state in {"running", "restarting", "paused"}]
        if left:
            engine.docker("stop", *left, timeout=None)
    console.say(
        f"stopped {len(running)} containers of {env.name}; `invoke deploy --env {env.name}` starts them again", "green"
    )


def drain(env: Environment) -> None:
    """Let open requests finish before everything is stopped; whoever comes meanwhile is told to come back later."""
    containers = engine.containers(env)
    if not (nginx := edge.find(containers)):
        return
    try:
        edge.close(nginx)
    except OpsError as error:
        console.warn(f"Open requests could not be waited for: {error}")
    # Their drain is done; the signal of the stop that follows is the second, which tells them not to wait for it.
    ours = [each.id for each in containers if each.running and each.service in model.load(env).rolling]
    if ours:
        engine.docker("kill", "--signal", "TERM", *ours, check=False)


@dataclass(frozen=True)
class Leftovers:
    """What still carries the project's label."""

    containers: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]

    def describe(self) -> str:
        kinds = (("container", self.containers), ("network", self.networks), ("volume", self.volumes))
        return ", ".join(f"{kind} {name}" for kind, names in kinds for name in names)


def leftovers(env: Environment) -> Leftovers:
    """Everything on the engine that belongs to the environment, one-off containers too."""
    label = f"{_PROJECT_LABEL}{env.project}"
    return Leftovers(
        containers=_names("ps", "--all", "--filter", label, "--format", "{{.Names}}"),
        networks=_names("network", "ls", "--filter", label, "--format", "{{.Name}}"),
        volumes=_names("volume", "ls", "--filter", label, "--format", "{{.Name}}"),
    )


def _names(*args: str) -> tuple[str, ...]:
    return tuple(sorted(engine.docker(*args).stdout.split()))


def down(env: Environment, *, volumes: bool = False, assume_yes: bool = False) -> None:
    """Remove containers and networks; with `volumes`, after asking, all data too.

    Raises OpsError when the person does not agree, or something is left over.
    """
    before = leftovers(env)
    doomed = before.volumes if volumes else ()
    if not (before.containers or before.networks or doomed):
        kept = f"; {len(before.volumes)} volumes with its data are kept" if before.volumes else ""
        console.say(f"nothing to remove: {env.name} is down{kept}")
        return
    if doomed:
        _agree_to_lose(env, doomed, assume_yes)
    with lock.hold(env, f"down --env {env.name}"):
        drain(env)
        _remove(env, before, doomed)
    after = leftovers(env)
    left = Leftovers(after.containers, after.networks, after.volumes if volumes else ())
    if described := left.describe():
        raise OpsError(f"{env.name} is not down, this is left: {described}.", "See who uses it: docker ps --all")
    kept = f", {len(after.volumes)} volumes kept" if after.volumes else ""
    console.say(
        f"{env.name} is down: {len(before.containers)} containers, {len(before.networks)} networks"
        f"{f', {len(doomed)} volumes' if doomed else ''} removed{kept}",
        "green",
    )


def _agree_to_lose(env: Environment, doomed: Sequence[str], assume_yes: bool) -> None:
    sizes = volume_sizes()
    console.say(f"These volumes of {env.name}, and all data in them, will be lost:")
    for name in doomed:
        console.say(f"  {name}  {console.size(sizes[name]) if sizes.get(name, -1) >= 0 else 'size unknown'}")
    question = f"Delete {len(doomed)} volumes of {env.name} for good?"
    if not console.confirm(question, assume_yes, expect=env.name if env.name == "prod" else ""):
        raise OpsError("Nothing was removed.", code=FAILED)


def volume_sizes() -> dict[str, int]:
    """Bytes of each volume on the engine; -1 where it does not say. Slow with many files: it counts them."""
    done = engine.docker("system", "df", "--verbose", "--format", "{{json .Volumes}}", check=False, timeout=120)
    if not done.ok:
        return {}
    return {each["Name"]: _bytes(each.get("Size", "")) for each in done.json() or []}


_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _bytes(text: str) -> int:
    """Bytes of a size as Docker prints it: "12.5MB" -> 12500000; -1 for anything else."""
    number = text.rstrip("kMGTB")
    unit = text[len(number) :]
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        return -1


def _remove(env: Environment, before: Leftovers, doomed: Sequence[str]) -> None:
    with console.activity(f"removing {len(before.containers)} containers") as tick:
        log = env.state_dir / "down.log"
        options = ("--remove-orphans", *(("--volumes",) if doomed else ()))
        argv = engine.compose_argv(env, "down", *options, all_profiles=True)
        if engine.logged(argv, log, tick, **engine.surroundings(env)):
            raise compose_failed(env, log)
        # What no Compose file declares any more: Compose does not know it, the label does.
        after = leftovers(env)
        if after.containers:
            engine.docker("rm", "--force", *after.containers, check=False)
        if after.networks:
            engine.docker("network", "rm", *after.networks, check=False)
        if store.name_of(env) in doomed:
            store.remove(env)
        if doomed and after.volumes:
            engine.docker("volume", "rm", *after.volumes, check=False)


# ── status, logs, config ──────────────────────────────────────────────────────────────────────────────────────────────


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


def _job_state(job: Container) -> str:
    if job.state != "exited":
        return job.state
    return "done" if job.exit_code == 0 else f"failed ({job.exit_code})"


def roles_of(env: Environment, containers: Sequence[Container]) -> dict[str, str]:
    """What every node of a database is at this moment, by service, as far as they say."""
    found = postgres.roles(env, containers)
    with contextlib.suppress(OpsError):
        leading = redis.primary(env, containers).id
        mine = [each for each in redis.nodes(containers) if each.running]
        found.update({each.service: "primary" if each.id == leading else "replica" for each in mine})
    return found


def status(env: Environment, as_json: bool = False) -> None:
    """Show how every service stands."""
    seen = glance(env)
    rows = standings(seen.stack, seen.containers, time.time(), roles_of(env, seen.containers))
    if as_json:
        document = {"environment": env.name, "project": env.project, "services": [row.__dict__ for row in rows]}
        console.say(json.dumps(document, indent=2))
        return
    console.print_table(
        ("SERVICE", "RUNNING", "STATE", "ROLE", "UP", "RESTARTS", "IMAGE", "PORTS"),
        [
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
        ],
    )
    if began := maintenance.since(env):
        console.say(f"\nmaintenance is {maintenance.describe(began)}: visitors are turned away", "yellow")
    if held := lock.holder(env):
        console.say(f"\nbeing changed: {held.describe(time.time())}", "yellow")
    if not seen.containers:
        console.say(f"\n{env.name} is down; start it with `invoke deploy --env {env.name}`")


def releases(env: Environment, as_json: bool = False) -> None:
    """Show the history of releases."""
    from ops.state import releases as history

    found = history.history(env, busy=bool(lock.holder(env)))
    if as_json:
        console.say(json.dumps(history.as_json(env, found), indent=2))
    else:
        history.show(env, found)


def logs(env: Environment, service: str = "", *, follow: bool = False, tail: str = "100", since: str = "") -> int:
    """Show logs; returns the exit code. tail: lines a container, or "all". since: "10m", "2h" or a time."""
    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise OpsError(f'--tail must be a whole number or "all", not "{tail}".', code=USAGE)
    if service:
        known = sorted(
            {*model.load(env, all_profiles=True).services, *(each.service for each in engine.containers(env))}
        )
        if service not in known:
            raise OpsError(f'There is no service "{service}".', f"There are: {', '.join(known)}.", USAGE)
    try:
        return engine.show(logs_argv(env, service, follow=follow, tail=tail, since=since), **engine.surroundings(env))
    except KeyboardInterrupt:
        # The way to end --follow, and nothing to complain about.
        return 0


def logs_argv(env: Environment, service: str, *, follow: bool, tail: str, since: str) -> list[str]:
    """The command line behind `logs`."""
    options = (
        *("--tail", tail),
        *(("--follow",) if follow else ()),
        *(("--since", since) if since else ()),
        *(() if console.is_terminal() else ("--no-color",)),
    )
    return engine.compose_argv(env, "logs", *options, *((service,) if service else ()), all_profiles=True)


def config(env: Environment, as_json: bool = False) -> None:
    """Show the resolved configuration; secrets are files, of which only the paths are in it."""
    command = engine.plain_command(env, "up", "--detach")
    if as_json:
        document: dict[str, Any] = {
            "environment": env.name,
            "command": command,
            "settings": env.values,
            "compose": model.load(env).document,
        }
        console.say(json.dumps(document, indent=2))
        return
    done = engine.compose(env, "config", check=False)
    if not done.ok:
        raise model.unresolved(env, done)
    console.say(f"# {env.name}: what `invoke deploy --env {env.name}` brings up, and equally, in the project's folder:")
    console.say(f"#   {command}")
    console.say(done.stdout.rstrip())


def doctor(env: Environment) -> bool:
    """Show every preflight check; returns whether none failed."""
    found = preflight.run(env, model.load(env), engine.containers(env))
    colours = {findings.OK: "green", findings.WARNING: "yellow", findings.FAILED: "red"}
    console.print_table(
        ("CHECK", "RESULT", "FOUND", "WHAT TO DO"),
        [
            (
                each.name,
                f"[{colours[each.status]}]{each.status}[/]",
                console.plain(each.detail),
                console.plain(each.remedy),
            )
            for each in found
        ],
    )
    failed = [each.name for each in found if each.status == findings.FAILED]
    console.say()
    if failed:
        console.say(f"{env.name} cannot be deployed: {', '.join(dict.fromkeys(failed))}", "red")
    else:
        console.say(f"{env.name} can be deployed", "green")
    return not failed


# ── secrets and certificate ───────────────────────────────────────────────────────────────────────────────────────────


def secret_init(env: Environment) -> None:
    """Make the secrets that are missing, and say which."""
    from ops.secrets import make

    _refuse_beside_another_folder(env)
    made = make.init(env)
    if not made:
        console.say(f"nothing to make: every secret of {env.name} is there")
        return
    files = "file" if len(made) == 1 else "files"
    console.say(f"made {len(made)} {files} in {relative(env.secrets_dir)}: {', '.join(made)}", "green")
    console.say("Keep a copy where you keep passwords: backups do not contain secrets.")


def _refuse_beside_another_folder(env: Environment) -> None:
    """Raise OpsError (REFUSED) when what runs has other secrets, in another folder."""
    try:
        containers, state = engine.containers(env), memory.load(env)
    except OpsError:
        # Secrets are often made before there is an engine: nothing runs then.
        return
    elsewhere.refuse_without_secrets(env, containers, state)


def secret_check(env: Environment, as_json: bool = False) -> int:
    """Show what is wrong with the secrets; returns the exit code."""
    from ops.secrets import check

    findings = check.check(env)
    if as_json:
        console.say(json.dumps(check.as_json(env, findings), indent=2))
    elif findings:
        colours = {"error": "red", "warning": "yellow", "skipped": "dim"}
        console.print_table(
            ("", "SECRET", "WHAT", "WHERE", "WHAT TO DO"),
            [
                (
                    f"[{colours[each.severity]}]{each.severity}[/]",
                    *(console.plain(text) for text in (each.secret, each.what, each.where, each.remedy)),
                )
                for each in findings
            ],
        )
    failed = check.failed(findings)
    if not as_json:
        console.say(check.verdict(env, findings), "red" if failed else "green")
    return FAILED if failed else 0


def certificate(env: Environment, self_signed: bool = False) -> None:
    """Show the certificate, made or renewed where that is ours to do; a running nginx takes a new one at once."""
    from ops.secrets import certificates

    shown = certificates.self_sign(env) if self_signed else certificates.ensure(env)
    verb = "made" if shown.issued else "found"
    console.say(f"{verb} {relative(shown.path)}: {', '.join(shown.names)}; {shown.days_left} days left")
    if shown.issued and (nginx := edge.find(engine.containers(env))):
        edge.reload(nginx)
        console.say("nginx uses it now")
