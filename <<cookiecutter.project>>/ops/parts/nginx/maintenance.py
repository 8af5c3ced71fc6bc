"""Maintenance: the site shows a page that says so, with 503 and Retry-After, while everything behind it runs.

A file in the folder that nginx has mounted is the switch: nginx looks for it at every request, so it counts at once,
cuts nothing that is open, and survives a restart of nginx or of the machine. Where nginx was started from another
checkout, that one's folder counts; the file is put into this one too, for the nginx that a deploy from here makes.
"""

from __future__ import annotations

import time
from pathlib import Path

from ops import engine
from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import USAGE, OpsError
from ops.base.files import replace_file
from ops.engine import Container
from ops.parts.nginx import edge
from ops.state.digests import MAINTENANCE

# Where nginx has mounted config/<env>/nginx.
_MOUNTED = "/etc/nginx/env"


def since(env: Environment) -> float | None:
    """When maintenance began, in seconds since the epoch; None when it is off."""
    try:
        return _switches(env)[0].stat().st_mtime
    except FileNotFoundError:
        return None
    except PermissionError:
        # Another user's folder is closed to this one, but not to nginx.
        return _asked(env)


def close(env: Environment, by: str = "") -> None:
    """Close the site, unless it is. by: the command that does, and opens again what it closed; "": a person."""
    for path in _switches(env):
        try:
            if not path.exists():
                # Whatever the umask says: nginx runs as another user.
                replace_file(path, by, 0o644)
        except OSError as error:
            raise _not_changed(path, error) from None


def reopen(env: Environment, by: str) -> None:
    """Open the site again, if that command has closed it."""
    if closed_by(env) == by:
        _open(env)


def _open(env: Environment) -> None:
    for path in _switches(env):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _not_changed(path, error) from None


def _not_changed(path: Path, error: OSError) -> OpsError:
    return OpsError(
        f"Maintenance cannot be switched: {relative(path.parent)}: {error.strerror}.",
        "Run this as the user who owns that folder: nginx was started from there.",
    )


def closed_by(env: Environment) -> str | None:
    """The command that has closed the site, "" for a person; None while it is open."""
    try:
        return _switches(env)[0].read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        return None


def switch(env: Environment, wanted: str) -> None:
    """Switch maintenance "on" or "off", or tell how it stands ("status"). Raises OpsError (usage) for another word."""
    began = since(env)
    if wanted == "on":
        close(env)
        console.say(f"maintenance of {env.name} is on: visitors get a page that says so; /health stays 200", "yellow")
        console.say(f"back to work: invoke maintenance off --env {env.name}")
    elif wanted == "off":
        _open(env)
        lasted = f" after {console.duration(time.time() - began)}" if began else ""
        console.say(f"maintenance of {env.name} is off{lasted}: visitors are served", "green")
    elif wanted == "status":
        console.say(f"maintenance of {env.name} is {describe(began)}")
    else:
        raise OpsError(f'"{wanted}" is neither on, off nor status.', "For example: invoke maintenance on", USAGE)


def describe(began: float | None) -> str:
    """In words: "off", or "on since 2026-01-31 14:03"."""
    return "off" if began is None else f"on since {time.strftime('%Y-%m-%d %H:%M', time.localtime(began))}"


def _nginx(env: Environment) -> Container | None:
    return next((each for each in engine.containers(env) if each.service == edge.SERVICE), None)


def _asked(env: Environment) -> float | None:
    """When maintenance began, as nginx sees it."""
    nginx = _nginx(env)
    if not nginx or not nginx.running:
        return None
    done = engine.exec_(nginx.id, ["stat", "-c", "%Y", f"{_MOUNTED}/{MAINTENANCE}"], check=False)
    return float(done.stdout) if done.ok else None


def _switches(env: Environment) -> list[Path]:
    """The files that close the site; the first one is what nginx looks for now."""
    nginx = _nginx(env)
    mounted = nginx.mounts.get(_MOUNTED) if nginx else None
    folders = [*([Path(mounted)] if mounted else []), env.env_file.parent / "nginx"]
    return list(dict.fromkeys(folder.resolve() / MAINTENANCE for folder in folders))
