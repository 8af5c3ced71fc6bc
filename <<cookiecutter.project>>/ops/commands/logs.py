"""What services write."""

from __future__ import annotations

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.stack import model


def logs(env: Environment, service: str = "", *, follow: bool = False, tail: str = "100", since: str = "") -> int:
    """Show logs; returns the exit code. tail: lines a container, or "all". since: "10m", "2h" or a time."""
    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise OpsError(f'--tail must be a whole number or "all", not "{tail}".', code=USAGE)
    # Also without a service: an engine that does not answer is told in our own words, and not by Compose.
    containers = engine.containers(env)
    if service:
        known = sorted({*model.load(env, all_profiles=True).services, *(each.service for each in containers)})
        if service not in known:
            raise OpsError(f'There is no service "{service}".', f"There are: {', '.join(known)}.", USAGE)
    try:
        argv = logs_argv(env, service, follow=follow, tail=tail, since=since)
        code = engine.show(argv, **engine.surroundings(env))
        # Compose takes a reader that has seen enough for a failure.
        return 0 if code and console.reader_is_gone() else code
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
