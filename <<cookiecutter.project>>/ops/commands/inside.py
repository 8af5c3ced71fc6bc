"""Commands inside containers: a one-off container of a service, a shell, psql, redis-cli.

The terminal, signals and the exit code are those of the command inside. Nothing is locked: a one-off container is no
replica, so deploy, scale and rollback neither count nor replace it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.engine import Container, kubectl
from ops.parts import postgres, redis
from ops.stack import labels, model
from ops.stack.model import Service, Stack
from ops.state.releases import author

# Who started a one-off container.
LABEL = "ops.by"
# The better shell of the two that an image may have.
SHELL = ("sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh")


def run(env: Environment, name: str, command: Sequence[str], entrypoint: bool = True) -> int:
    """Run a command in a one-off container of a service, or the service's own command when there is none; its exit
    code.

    entrypoint: let the image's entrypoint start the command, as the service itself is started. Raises OpsError when the
    service cannot be run this way, or the environment does not run.
    """
    declared = model.load(env)
    service = find(env, declared, name)
    refuse_part(service)
    containers = _running(env)
    if not command:
        refuse_second(service, containers)
    _refuse_without_image(env, service)
    return _one_off(env, name, command, entrypoint)


def shell(env: Environment, name: str, new: bool = False) -> int:
    """A shell in a container of a service; its exit code. new: in a one-off one, beside those that run. Raises
    OpsError."""
    declared = model.load(env)
    service = find(env, declared, name)
    containers = _running(env)
    if new:
        refuse_part(service)
        _refuse_without_image(env, service)
        return _one_off(env, name, SHELL, entrypoint=False)
    become_shell(env, service, containers)


def become_shell(env: Environment, service: Service, containers: Sequence[Container]) -> NoReturn:
    """Go on as a shell in one of the containers that run. Raises OpsError when there is none, or its image has none."""
    name = service.name
    mine = [each for each in containers if each.service == name]
    if not mine:
        remedy = f"In a container of its own: invoke shell {name} --new --env {env.name}" if service.own else ""
        raise OpsError(f"{name} does not run in {env.name}.", remedy, REFUSED)
    if not engine.exec_(mine[0].id, ["sh", "-c", "true"], check=False).ok:
        raise OpsError(f"The image of {name} has no shell.", "See what it writes: invoke logs " + name, REFUSED)
    _become_exec(mine[0], *SHELL)


def psql(
    env: Environment, database: str, arguments: Sequence[str], containers: Sequence[Container] | None = None
) -> NoReturn:
    """psql on the primary, wherever it is, as the superuser. database: "" is the stack's own; containers: those that
    run, if they are known. Raises OpsError."""
    primary = postgres.primary(env, _running(env) if containers is None else containers)
    usual = env.values.get("POSTGRES_DB", "postgres")
    if database:
        done = engine.exec_(primary.id, postgres.psql(env, "--command", _DATABASES, database="postgres"))
        _refuse_unknown("database", database, done.stdout.split())
    _become_exec(
        primary,
        # There is no place for a history file in the container.
        *("psql", "--set=HISTFILE=/dev/null", f"--username={env.values.get('POSTGRES_USER', 'postgres')}"),
        *(f"--dbname={database or usual}", *arguments),
    )


_DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"


def redis_cli(env: Environment, arguments: Sequence[str], containers: Sequence[Container] | None = None) -> NoReturn:
    """redis-cli on the primary, with every right; the password is on no command line. containers: those that run, if
    they are known. Raises OpsError."""
    _become_exec(
        redis.primary(env, _running(env) if containers is None else containers), "sh", "/etc/redis/cli.sh", *arguments
    )


# ── what is started ───────────────────────────────────────────────────────────────────────────────────────────────────


def _one_off(env: Environment, service: str, command: Sequence[str], entrypoint: bool) -> int:
    name = f"{env.project}-{service}-run-{os.getpid()}"
    argv = one_off_argv(env, name, service, command, entrypoint, is_terminal())
    code = engine.attended(argv, **engine.surroundings(env))
    # Told to end, Compose leaves what it has started.
    if engine.inspect([name]):
        engine.docker("stop", name, check=False, timeout=None)
    return code


def one_off_argv(
    env: Environment, name: str, service: str, command: Sequence[str], entrypoint: bool, terminal: bool
) -> list[str]:
    """The Compose command for a one-off container of a name, with no published port and none of the service's names."""
    first, rest = ((), command) if entrypoint or not command else (("--entrypoint", command[0]), command[1:])
    return engine.compose_argv(
        env,
        *("run", "--rm", "--no-deps", "--pull", "never", "--quiet-pull"),
        *(() if terminal else ("--no-TTY",)),
        *("--name", name, "--label", f"{LABEL}={author()}"),
        *(*first, service, *rest),
    )


def is_terminal() -> bool:
    """Whether a person is at both ends: what is piped must not be changed by a terminal in between."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _become_exec(container: Container, *command: str) -> NoReturn:
    if pod := kubectl.pod(container.id):
        engine.become(kubectl.exec_argv(pod, *command, stdin=True, terminal=is_terminal()))
    options = ("--interactive", *(("--tty",) if is_terminal() else ()))
    engine.become(engine.docker_argv("exec", *options, container.id, *command))


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


def find(env: Environment, declared: Stack, name: str) -> Service:
    """The declared service of a name. Raises OpsError (usage) when there is none, with the one that may be meant."""
    if name not in declared.services:
        _refuse_unknown("service", name, list(declared.services))
    return declared.services[name]


def _refuse_unknown(kind: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    remedy = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(known))}."
    raise OpsError(f'There is no {kind} "{name}".', remedy, USAGE)


def _running(env: Environment) -> list[Container]:
    """The containers that run. Raises OpsError when none does."""
    found = [each for each in engine.containers(env) if each.running]
    if not found:
        raise OpsError(f"{env.name} is not running.", f"Start it: invoke deploy --env {env.name}", REFUSED)
    return found


def refuse_part(service: Service) -> None:
    """A second container of a database would write to the first one's files. A job is made to be run."""
    if not (service.own or service.job):
        raise OpsError(
            f"{service.name} is a part of the stack, not a service of your own: a second one must not run beside it.",
            f"In the one that runs: invoke shell {service.name}",
            USAGE,
        )


def refuse_second(service: Service, containers: Sequence[Container]) -> None:
    if service.job == labels.SCHEDULED and any(each.service == service.name for each in containers):
        raise OpsError(
            f"{service.name} is running right now: its schedule started it.",
            f"See: invoke logs {service.name}, invoke status",
            REFUSED,
        )


def _refuse_without_image(env: Environment, service: Service) -> None:
    """Compose would build or pull it, in the middle of what a person is waiting for."""
    if not engine.image_ids([service.image]):
        raise OpsError(
            f"The image of {service.name} is not on this machine: {service.image}.",
            f"invoke deploy --env {env.name}",
            REFUSED,
        )
