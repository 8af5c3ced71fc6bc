"""A server with the data of a moment, beside the stack: to look at what was, or to copy rows from.

A container of the part `backup` recovers the moment into a volume of its own; another one, which has neither keys nor a
way to anything, serves it on a port of 127.0.0.1. Nothing of the stack is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.base.waiting import until
from ops.data import choice, part
from ops.data.backup import Tick
from ops.data.entries import Wanted
from ops.parts.postgres import managed, ownership
from ops.secrets.files import read
from ops.stack import model

# On its container and its volume, with the project as the value; and what it holds, in words.
LABEL, CONTENT = "ops.scratch", "ops.scratch.content"
# Where it has its volume.
_FOLDER = "/served"
_START_SECONDS = 120.0
_PORT = "5432"


@dataclass(frozen=True)
class Scratch:
    """A server beside the stack. content: the moment, in words; address: host:port; "" when it does not run."""

    name: str
    content: str
    address: str


def name_of(env: Environment) -> str:
    """Its container and its volume."""
    return f"{env.project}-scratch"


def find(env: Environment) -> Scratch | None:
    """The server beside the stack; None when there is none."""
    name = name_of(env)
    if found := engine.inspect([name]):
        container = engine.container(found[0])
        address = next((each.partition("->")[0] for each in container.ports), "")
        return Scratch(name, container.labels.get(CONTENT, ""), address if container.running else "")
    return None


def start(
    env: Environment, wanted: Wanted, only: Sequence[choice.Part] = (), tick: Tick = lambda _words: None
) -> Scratch:
    """Recover a moment and serve it. Raises OpsError when there is a server already, or the moment cannot be
    recovered; nothing is left of it then."""
    if other := [str(each) for each in only if each.kind not in {"postgres", "database"}]:
        raise OpsError(
            f"--into scratch serves PostgreSQL, and {', '.join(other)} is not of it.",
            "Restore it in place: without --into.",
            USAGE,
        )
    declared = model.load(env)
    part.require(env, declared)
    name = name_of(env)
    if there := find(env):
        raise OpsError(
            f"{name} is there already: {there.content}.", f"invoke restore --drop-scratch --env {env.name}", REFUSED
        )
    part.make_image(env, declared, tick)
    image = declared.services[part.SERVICE].image
    plan = part.call(env, ["materialize", *wanted.arguments, "--plan"], tick)
    content = f"PostgreSQL of {plan['environment']} as of {plan['moment']}, from backup {plan['entry']}"
    # Of a command that was killed; one that is at work uses it, and this is refused.
    _remove_volume(env)
    engine.docker("volume", "create", "--label", f"{LABEL}={env.project}", name)
    try:
        _give(name, image)
        part.call(env, ["recover", *wanted.arguments, f"--into={_FOLDER}"], tick, mounts=[f"{name}:{_FOLDER}"])
        tick("starting the server")
        engine.docker(*serve_argv(env, name, image, content))
        container = engine.look([name])[0]
        if not until(lambda: _asked(env, container, "SELECT 1"), _START_SECONDS, 0.5):
            lines = "; ".join(engine.logs(container.id, 3))
            raise OpsError(f"The recovered server did not start: {lines}")
        _set_password(env, container)
    except BaseException:
        drop(env)
        raise
    found = find(env)
    assert found
    return found


def _give(volume: str, image: str) -> None:
    """Let the user of the server write to its volume, which the engine made for root."""
    narrow = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    mount = ("--volume", f"{volume}:{_FOLDER}")
    line = ("--entrypoint", "chown", image, "999:999", _FOLDER)
    engine.docker("run", "--rm", *narrow, "--user", "0:0", "--cap-add", "CHOWN", *mount, *line)


def serve_argv(env: Environment, name: str, image: str, content: str) -> list[str]:
    """The docker command for the server: in no network of the stack, and without a secret."""
    return [
        *("run", "--detach", "--name", name, "--label", f"{LABEL}={env.project}", "--label", f"{CONTENT}={content}"),
        *("--publish", f"127.0.0.1::{_PORT}", "--volume", f"{name}:{_FOLDER}", "--shm-size", "128m"),
        *("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--pids-limit", "256", "--stop-signal", "SIGINT", "--entrypoint", "python3", image),
        *("-m", "ops.recovery.serve", _FOLDER),
    ]


def _login(env: Environment) -> tuple[str, str, str]:
    """The superuser of the server, the secret that becomes its password, and the database to begin with."""
    common = env.values["POSTGRES_DB"]
    if managed.here(env):
        return "backup", "BACKUP_DB_PASSWORD", common
    return env.values["POSTGRES_USER"], "POSTGRES_PASSWORD", common


def _asked(env: Environment, container: engine.Container, text: str) -> bool:
    line = ["psql", "-h", "/tmp", "-U", _login(env)[0], "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
    return engine.exec_(container.id, line, input=text, check=False).ok


def _set_password(env: Environment, container: engine.Container) -> None:
    """Let the superuser log in with today's password: that of back then may be forgotten."""
    user, secret, _ = _login(env)
    password = read(env, secret)
    text = f"SET log_statement = none; ALTER ROLE {ownership.identifier(user)} PASSWORD {ownership.literal(password)};"
    if not _asked(env, container, text):
        raise OpsError(f"{container.name} does not let its superuser have a password.", f"docker logs {container.name}")


def drop(env: Environment) -> bool:
    """Remove the server, its data, and what a command that was killed left of one; whether there was anything."""
    name = name_of(env)
    there = bool(engine.inspect([name]) or engine.inspect([name], "volume"))
    engine.docker("rm", "--force", "--volumes", name, check=False)
    _remove_volume(env)
    return there


def _remove_volume(env: Environment) -> None:
    done = engine.docker("volume", "rm", "--force", name_of(env), check=False)
    if not done.ok and "in use" in done.stderr:
        raise OpsError(
            f"{name_of(env)} is being recovered by another command.", "Wait for it to end, or stop it.", REFUSED
        )


def as_json(found: Scratch, env: Environment) -> dict[str, Any]:
    """The server for programs."""
    return {"name": found.name, "content": found.content, "url": url(env, found)}


def url(env: Environment, found: Scratch) -> str:
    """The connection string, without the password."""
    user, _, database = _login(env)
    return f"postgresql://{user}@{found.address}/{database}"


def show(found: Scratch, env: Environment) -> None:
    """The server for people."""
    console.say(f"{found.name} serves {found.content}", "green")
    console.say(f"  {url(env, found)}")
    user, secret, database = _login(env)
    console.say(f"  the password is that of the stack: config/{env.name}/secrets/{secret}")
    console.say(f"  docker exec -it {found.name} psql -h /tmp -U {user} {database}")
    console.say(f"  remove it: invoke restore --drop-scratch --env {env.name}")
