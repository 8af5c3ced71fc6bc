"""Maintenance: the site shows a page that says so, with 503 and Retry-After, while everything behind it runs.

A file in the folder that nginx has mounted is the switch: nginx looks for it at every request, so it counts at once,
cuts nothing that is open, and survives a restart of nginx or of the machine.
"""

from __future__ import annotations

import time
from pathlib import Path

from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.base.files import replace_file
from ops.state.digests import MAINTENANCE


def since(env: Environment) -> float | None:
    """When maintenance began, in seconds since the epoch; None when it is off."""
    try:
        return _switch(env).stat().st_mtime
    except FileNotFoundError:
        return None


def close(env: Environment, by: str = "") -> None:
    """Close the site, unless it is. by: the command that does, and opens again what it closed; "": a person."""
    if since(env) is None:
        # Whatever the umask says: nginx runs as another user.
        replace_file(_switch(env), by, 0o644)


def reopen(env: Environment, by: str) -> None:
    """Open the site again, if that command has closed it."""
    if closed_by(env) == by:
        _switch(env).unlink()


def closed_by(env: Environment) -> str | None:
    """The command that has closed the site, "" for a person; None while it is open."""
    try:
        return _switch(env).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def switch(env: Environment, wanted: str) -> None:
    """Switch maintenance "on" or "off", or tell how it stands ("status"). Raises OpsError (usage) for another word."""
    began = since(env)
    if wanted == "on":
        close(env)
        console.say(f"maintenance of {env.name} is on: visitors get a page that says so; /health stays 200", "yellow")
        console.say(f"back to work: invoke maintenance off --env {env.name}")
    elif wanted == "off":
        _switch(env).unlink(missing_ok=True)
        lasted = f" after {console.duration(time.time() - began)}" if began else ""
        console.say(f"maintenance of {env.name} is off{lasted}: visitors are served", "green")
    elif wanted == "status":
        console.say(f"maintenance of {env.name} is {describe(began)}")
    else:
        raise OpsError(f'"{wanted}" is neither on, off nor status.', "For example: invoke maintenance on", USAGE)


def describe(began: float | None) -> str:
    """In words: "off", or "on since 2026-01-31 14:03"."""
    return "off" if began is None else f"on since {time.strftime('%Y-%m-%d %H:%M', time.localtime(began))}"


def _switch(env: Environment) -> Path:
    return env.env_file.parent / "nginx" / MAINTENANCE
