"""Docker: the only module that says `docker`.

Every command line is built here from a list of arguments (`docker_argv`, `compose_argv`: pure), and run here. A child
gets a process group of its own, so that Ctrl-C ends it and everything it started, also a build in another thread.

Which variables Compose sees: the settings file is the declared state. A variable of the caller's shell that would
override it (same name, another value) is dropped with a warning, and so is every COMPOSE_* variable; otherwise the
same command would deploy different things from two terminals. All else (DOCKER_HOST, …) is passed on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from ops.base.console import warn
from ops.base.environments import Environment, relative
from ops.base.errors import FAILED, REFUSED, OpsError

# An engine that is alive answers in milliseconds; a loaded one may need seconds. Longer work passes its own limit.
ANSWER_SECONDS = 60
# How long a child may take to end after Ctrl-C before it is killed. Compose needs a moment to cancel what it began.
FAREWELL_SECONDS = 10

_HELD = "com.docker.compose."
_children: set[subprocess.Popen[Any]] = set()
_children_lock = threading.Lock()


class TimedOut(OpsError):
    """A command gave no answer in time."""


@dataclass(frozen=True)
class Completed:
    """A finished command."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def json(self) -> Any:
        """Standard output as JSON: one document, or a list of one a line (as `docker ps --format json` prints)."""
        text = self.stdout.strip()
        if not text:
            return []
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return [json.loads(line) for line in text.splitlines()]


@dataclass(frozen=True)
class Container:
    """A container of the project, as `docker inspect` tells it. Times are seconds since the epoch (0 = never)."""

    id: str
    name: str
    service: str
    number: int
    state: str  # created, running, restarting, paused, exited, dead
    health: str  # starting, healthy, unhealthy; "" without a health check
    image_id: str
    image: str
    config_hash: str
    created: float
    started: float
    exit_code: int = 0
    restarts: int = 0
    oom_killed: bool = False
    error: str = ""
    health_log: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)  # by network; none while it does not run
    restart_policy: str = ""

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def ready(self) -> bool:
        """Running, and healthy as far as it can say."""
        return self.running and self.health in {"healthy", ""}


def docker_argv(*args: str) -> list[str]:
    """Command line of a plain docker command."""
    return ["docker", *args]


def compose_argv(env: Environment, *args: str, all_profiles: bool = False, document: Path | None = None) -> list[str]:
    """Command line of a Compose command for an environment: the same a person would type in the project's folder.

    all_profiles: also services that are switched off, for what must reach everything (stop, down).
    document: a resolved configuration to use instead of the Compose files, such as that of a release.
    """
    return [
        *("docker", "compose", "--project-directory", str(env.project_dir), "--env-file", str(env.env_file)),
        *(("--file", str(document)) if document else ()),
        *(("--profile", "*") if all_profiles else ()),
        *args,
    ]


def plain_command(env: Environment, *args: str) -> str:
    """What a person types in the project's folder for the configuration that compose_argv uses."""
    return shlex.join(["docker", "compose", "--env-file", str(env.env_file.relative_to(env.project_dir)), *args])


def exec_argv(
    container: str, *argv: str, user: str = "", variables: Sequence[str] = (), stdin: bool = False
) -> list[str]:
    """Command line that runs something in a container.

    variables: names only; values come from the child's environment, so that a secret is never on a command line.
    """
    options = (*(("--user", user) if user else ()), *(("--interactive",) if stdin else ()))
    return docker_argv("exec", *options, *(part for name in variables for part in ("--env", name)), container, *argv)


def child_environment(env: Environment | None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours without COMPOSE_* and what the settings file says itself, with its overrides."""
    base = os.environ if base is None else base
    settings = env.values if env else {}
    kept = {key: value for key, value in base.items() if not key.startswith("COMPOSE_") and key not in settings}
    return {**kept, **(env.overrides if env else {})}


def overridden(env: Environment, base: Mapping[str, str] | None = None) -> list[str]:
    """Names of variables in the caller's shell that would have changed the environment's settings."""
    base = os.environ if base is None else base
    return sorted(key for key, value in base.items() if env.values.get(key, value) != value)


def run(
    argv: Sequence[str],
    *,
    input: str | bytes | None = None,
    timeout: float | None = ANSWER_SECONDS,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a command and wait for it. timeout in seconds (None: for ever).

    Raises OpsError when it cannot start, gives no answer in time (TimedOut), or (check) exits non-zero.
    """
    data = input.encode() if isinstance(input, str) else input
    with popen(
        argv,
        stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        environment=environment,
        cwd=cwd,
    ) as child:
        try:
            stdout, stderr = child.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            raise TimedOut(
                f"`{brief(argv)}` gave no answer within {timeout:.0f} s.",
                "See whether the engine is well: docker info.",
            ) from None
    done = Completed(tuple(argv), child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if check and not done.ok:
        raise failure(done)
    return done


def docker(*args: str, **options: Any) -> Completed:
    """Run a docker command; options as of `run`."""
    return run(docker_argv(*args), **options)


def compose(
    env: Environment, *args: str, all_profiles: bool = False, document: Path | None = None, **options: Any
) -> Completed:
    """Run a Compose command for an environment; options as of `run`."""
    argv = compose_argv(env, *args, all_profiles=all_profiles, document=document)
    return run(argv, **surroundings(env), **options)


def surroundings(env: Environment) -> dict[str, Any]:
    """What a Compose command needs around it (options of `run`, `popen`, `show`): its variables, and the project's
    folder, because Compose looks up the names in COMPOSE_FILE from where it is called."""
    warn_overridden(env)
    return {"environment": child_environment(env), "cwd": env.project_dir}


def exec_(
    container: str,
    argv: Sequence[str],
    *,
    user: str = "",
    variables: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    **options: Any,
) -> Completed:
    """Run a command in a container; variables are set for it without showing on a command line; options as of `run`."""
    variables = variables or {}
    line = exec_argv(container, *argv, user=user, variables=list(variables), stdin=input is not None)
    return run(line, input=input, environment={**os.environ, **variables}, **options)


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


# Looked up once, because little may be done between fork and exec.
_LIBC = _libc()
_PR_SET_PDEATHSIG = 1


def _follow_parent() -> None:
    """In a new child, on Linux: ask the kernel for SIGTERM when the command that made it is killed, and be as nice.

    Otherwise a Compose would go on by itself while the lock of its killed command is free. And where sessions share the
    processor evenly (autogroup), a nice value counts only within one, and a child has one of its own.
    """
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        with contextlib.suppress(OSError):
            group = os.open("/proc/self/autogroup", os.O_WRONLY)
            os.write(group, b"%d" % os.getpriority(os.PRIO_PROCESS, 0))
            os.close(group)


@contextlib.contextmanager
def popen(
    argv: Sequence[str],
    *,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own that does not outlive the block, whatever ends it."""
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment) if environment is not None else None,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_follow_parent,
        )
    except FileNotFoundError:
        raise OpsError(
            f"{argv[0]} is not installed or not on PATH.",
            "Install Docker Engine 25 or newer with Compose 2.32.",
            REFUSED,
        ) from None
    with _children_lock:
        _children.add(child)
    try:
        with child:
            try:
                yield child
            except BaseException:
                end(child)
                raise
    finally:
        with _children_lock:
            _children.discard(child)


def end(child: subprocess.Popen[Any]) -> None:
    """End a child and all it started: politely first."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(FAREWELL_SECONDS)
        # What is left of the group: the child itself, or what it started and did not wait for.
        os.killpg(child.pid, signal.SIGKILL)


def end_all() -> None:
    """End every child that still runs (after Ctrl-C, when other threads wait for theirs)."""
    with _children_lock:
        children = list(_children)
    for child in children:
        end(child)


def show(argv: Sequence[str], **options: Any) -> int:
    """Run a command that writes to our own output (logs), and return its exit code; options as of `popen`."""
    with popen(argv, **options) as child:
        return child.wait()


def logged(argv: Sequence[str], log: Path, tick: Callable[[str], None], **options: Any) -> int:
    """Run a command with its output in a file, and return its exit code; options as of `popen`.

    tick: called twice a second with the last line of output, so that somebody can show progress.
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("wb") as file, popen(argv, stdout=file, stderr=subprocess.STDOUT, **options) as child:
        while True:
            try:
                return child.wait(0.5)
            except subprocess.TimeoutExpired:
                tick("".join(tail(log, 1)))


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a file that say something."""
    with log.open("rb") as file:
        # 200 bytes a line are plenty for what people read.
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
        text = file.read().decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


@cache
def _warn_once(text: str) -> None:
    warn(text)


def warn_overridden(env: Environment) -> None:
    """One warning for shell variables that the settings file wins over."""
    if names := overridden(env):
        _warn_once(
            f"{', '.join(names)} from your shell {'is' if len(names) == 1 else 'are'} ignored:"
            f" {relative(env.env_file)} decides."
        )


def brief(argv: Sequence[str]) -> str:
    """A command line for messages, without the options that every Compose command has."""
    words = list(argv)
    for option in ("--project-directory", "--env-file", "--file", "--profile"):
        if option in words:
            place = words.index(option)
            del words[place : place + 2]
    return " ".join(words[:6]) + (" …" if len(words) > 6 else "")


_EXPLANATIONS = (
    (
        r"permission denied while trying to connect",
        "You may not use the Docker engine.",
        "Join the group that owns its socket (usermod -aG docker $USER, then log in again), or use sudo.",
        REFUSED,
    ),
    (
        r"Cannot connect to the Docker daemon|error during connect|docker\.sock: connect|daemon running\?",
        "The Docker engine does not answer.",
        "Start it (systemctl start docker), or check DOCKER_HOST and `docker context ls`.",
        REFUSED,
    ),
    (
        r"is not a docker command|unknown (?:shorthand )?(?:flag|command).*compose",
        "Docker Compose is not installed.",
        "Install the Compose plugin, 2.32 or newer: https://docs.docker.com/compose/install/",
        REFUSED,
    ),
    (r"no space left on device", "The disk is full.", "Make room: docker system df, then docker image prune.", FAILED),
)


def explain(stderr: str) -> OpsError | None:
    """What a well-known complaint of docker means, and what to do about it."""
    for pattern, message, remedy, code in _EXPLANATIONS:
        if re.search(pattern, stderr):
            return OpsError(message, remedy, code)
    return None


def failure(done: Completed) -> OpsError:
    """The error for a command that exited non-zero."""
    if known := explain(done.stderr):
        return known
    lines = [line.strip() for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    return OpsError(
        f"`{brief(done.argv)}` failed (exit code {done.code}): {lines[-1] if lines else 'it gave no reason'}"
    )


def processors() -> int:
    """How many processors the engine has; at least 1."""
    return max(1, int(docker("info", "--format", "{{.NCPU}}").stdout.strip() or 1))


def inspect(ids: Sequence[str], kind: str = "container") -> list[dict[str, Any]]:
    """`docker inspect` of several objects in one call; those that do not exist (any more) are left out."""
    if not ids:
        return []
    done = docker("inspect", "--type", kind, *ids, check=False)
    if not done.ok and (known := explain(done.stderr)):
        raise known
    return done.json()


def image_ids(references: Sequence[str]) -> dict[str, str]:
    """Image id of each reference that is present on the engine."""
    found: dict[str, str] = {}
    for image in inspect(list(dict.fromkeys(references)), "image"):
        for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()), image["Id"]):
            found[name] = image["Id"]
    return {name: found[key] for name in references if (key := canonical(name)) in found or (key := name) in found}


def canonical(reference: str) -> str:
    """An image reference as the engine lists it: with a tag, without docker.io/ and library/."""
    name = re.sub(r"^(?:docker\.io/)?(?:library/)?", "", reference)
    if "@" in name or ":" in name.rsplit("/", 1)[-1] or name.startswith("sha256:"):
        return name
    return f"{name}:latest"


def containers(env: Environment) -> list[Container]:
    """Every container of the project, stopped ones too, one-off ones (`docker compose run`) not."""
    listed = docker(
        *("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_HELD}project={env.project}"),
        *("--filter", f"label={_HELD}oneoff=False"),
    )
    return look(listed.stdout.split())


def look(ids: Sequence[str]) -> list[Container]:
    """Some containers, as they are now; those that are gone are left out."""
    found = [container(each) for each in inspect(ids)]
    return sorted(found, key=lambda each: (each.service, each.number, each.created))


def container(inspected: Mapping[str, Any]) -> Container:
    """A Container from one element of `docker inspect`."""
    state, config = inspected["State"], inspected["Config"]
    labels = config.get("Labels") or {}
    health = state.get("Health") or {}
    return Container(
        id=inspected["Id"],
        name=inspected["Name"].removeprefix("/"),
        service=labels.get(f"{_HELD}service", ""),
        number=int(labels.get(f"{_HELD}container-number") or 0),
        state=state["Status"],
        health=status if (status := health.get("Status", "")) != "none" else "",
        image_id=inspected["Image"],
        image=config.get("Image", ""),
        config_hash=labels.get(f"{_HELD}config-hash", ""),
        created=timestamp(inspected.get("Created", "")),
        started=timestamp(state.get("StartedAt", "")),
        exit_code=state.get("ExitCode", 0),
        restarts=inspected.get("RestartCount", 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
        health_log=tuple(entry.get("Output", "").strip() for entry in health.get("Log") or ()),
        ports=tuple(_published(inspected.get("NetworkSettings") or {})),
        labels=labels,
        addresses=_addresses(inspected.get("NetworkSettings") or {}),
        restart_policy=((inspected.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name", ""),
    )


def _published(network: Mapping[str, Any]) -> list[str]:
    return sorted(
        f"{binding['HostIp']}:{binding['HostPort']}->{target.removesuffix('/tcp')}"
        for target, bindings in (network.get("Ports") or {}).items()
        for binding in bindings or ()
    )


def _addresses(network: Mapping[str, Any]) -> dict[str, str]:
    networks = network.get("Networks") or {}
    return {name: each["IPAddress"] for name, each in sorted(networks.items()) if each.get("IPAddress")}


def timestamp(text: str) -> float:
    """Seconds since the epoch of a time as Docker prints it (nanoseconds, Z or offset); 0 for "never"."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)", text)
    if not match or text.startswith("0001"):
        return 0.0
    return datetime.fromisoformat(f"{match[1]}{match[2] or ''}{match[3].replace('Z', '+00:00')}").timestamp()


def logs(container_id: str, lines: int = 20) -> list[str]:
    """The last lines of a container's output, both streams in order as far as Docker keeps it."""
    done = run(docker_argv("logs", "--tail", str(lines), container_id), check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-lines:]
