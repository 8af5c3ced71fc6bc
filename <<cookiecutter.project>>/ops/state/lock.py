"""One change of an environment at a time, whoever makes it and from wherever: the lock is held on the engine.

The lock is a container: its name is unique, which the engine itself sees to, and it lives as long as its standard
input, which the holder keeps open. A holder that is killed frees it within a moment. Its labels say who holds it.
In a cluster it is a Lease (lease.py).
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Protocol

from ops import engine
from ops.base import console
from ops.base.environments import KUBERNETES, Environment
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.state.releases import author

# For the engine to start the container, and to remove it when its input ends; it takes a quarter of a second.
_START_SECONDS = 30.0
_GONE_SECONDS = 15.0
_PAUSE = 0.05
# Between two attempts of a command that waits for its turn; each starts a container.
_RETRY_SECONDS = 3.0
# Of states a container can be in when it holds nothing any more: its engine was killed, and could not remove it.
_STALE = frozenset({"exited", "dead"})
# Made, but never started: by a holder that was killed in that moment, unless it is about to be.
_CREATED_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. who: user@host; since: seconds since the epoch."""

    who: str
    purpose: str
    since: float
    container: str

    def describe(self, now: float) -> str:
        """In words, for somebody who waits: "invoke deploy by ann@laptop since 14:03:11 (2 min 5 s)"."""
        clock = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"invoke {self.purpose} by {self.who} since {clock} ({console.duration(max(0, now - self.since))})"


class Lock(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise OpsError when the lock was lost."""


@dataclass
class Kept:
    """A lock that is a container. child: the docker client whose standard input keeps it."""

    name: str
    child: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise OpsError when the lock was lost: the engine restarted, or somebody broke it."""
        if self.child.poll() is not None:
            raise OpsError(
                f"The lock {self.name} is gone: the engine restarted, or somebody ran `invoke unlock`.",
                "Nothing more was changed. Check that nobody else is changing it (invoke status), then run it again.",
            )


def name_of(env: Environment) -> str:
    """The container that is the lock."""
    return f"{env.project}-change-lock"


def seconds(text: str) -> int:
    """How long to wait, as it was typed. Raises OpsError (usage) for anything but a whole number."""
    if not (text.isascii() and text.isdigit()):
        raise OpsError(
            f'--lock-wait must be a whole number of seconds, not "{text}".', "For example: --lock-wait 600", USAGE
        )
    return int(text)


class Busy(OpsError):
    """Somebody else holds the lock."""


@contextlib.contextmanager
def hold(env: Environment, purpose: str, wait: float = 0) -> Iterator[Lock]:
    """Hold the lock of an environment.

    purpose: the command, as it is told to those who come meanwhile; wait: for how many seconds to try again while
    somebody else has it. Raises Busy (REFUSED) after that.
    """
    if env.engine == KUBERNETES:
        from ops.state import lease

        with lease.hold(env, purpose, wait) as leased:
            yield leased
        return
    ends = time.monotonic() + wait
    with contextlib.ExitStack() as stack:
        waiting = False
        while True:
            try:
                held = stack.enter_context(_take(env, purpose))
                break
            except Busy as busy:
                if time.monotonic() >= ends:
                    raise
                if not waiting:
                    console.say(f"{busy.message} Waiting for up to {console.duration(wait)}.")
                waiting = True
                time.sleep(_RETRY_SECONDS)
        yield held


@contextlib.contextmanager
def _take(env: Environment, purpose: str) -> Iterator[Kept]:
    name = name_of(env)
    labels = {
        "ops.lock": "change",
        "ops.project": env.project,
        "ops.holder": author(),
        "ops.purpose": purpose,
        "ops.since": f"{time.time():.0f}",
    }
    line = run_argv(name, _image(env), labels)
    _remove_stale(name)
    with engine.popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            _await_echo(env, name, child)
            yield Kept(name, child)
        finally:
            with contextlib.suppress(OSError):
                _pipe(child.stdin).close()
            _await_end(name, child)


def run_argv(name: str, image: str, labels: Mapping[str, str]) -> list[str]:
    """The command line of a lock: a `cat` that can do nothing but end with its input."""
    return engine.docker_argv(
        *("run", "--interactive", "--rm", "--name", name, "--pull", "never", "--entrypoint", "cat"),
        *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--user", "65534:65534", "--memory", "16m", "--pids-limit", "8", "--log-driver", "none"),
        *(part for key, value in labels.items() for part in ("--label", f"{key}={value}")),
        image,
    )


def holder(env: Environment) -> Holder | None:
    """Who holds the lock of an environment; None when nobody does."""
    if env.engine == KUBERNETES:
        from ops.state import lease

        return lease.holder(env)
    found = engine.inspect([name_of(env)])
    if not found or found[0]["State"]["Status"] in _STALE:
        return None
    return holder_of(engine.container(found[0]))


def holder_of(container: Container) -> Holder:
    """What the labels of a lock say."""
    labels = container.labels
    return Holder(
        labels.get("ops.holder", "somebody"),
        labels.get("ops.purpose", "something"),
        float(labels.get("ops.since") or container.created),
        container.id,
    )


def unlock(env: Environment, assume_yes: bool = False) -> None:
    """Remove the lock of an environment, after asking: for a holder whose machine is gone."""
    held = holder(env)
    if not held:
        console.say(f"{env.name} is not locked")
        return
    console.say(f"{env.name} is locked: {held.describe(time.time())}")
    if not console.confirm("If it still runs, it stops at its next step. Remove the lock?", assume_yes):
        raise OpsError("Nothing was changed.")
    if env.engine == KUBERNETES:
        from ops.state import lease

        lease.remove(env)
    else:
        engine.docker("rm", "--force", held.container)
    console.say(f"unlocked; `invoke deploy --env {env.name}` finishes what was left half done", "green")


def _image(env: Environment) -> str:
    """An image that has `cat` and is on the engine: nginx's, which every stack has; pulled when it is not there yet."""
    from ops.stack import images

    wanted = env.values.get("NGINX_IMAGE", "")
    if engine.image_ids([wanted]):
        return wanted
    existing = [each.image_id for each in engine.containers(env) if each.service == "nginx"]
    if existing:
        return existing[0]
    console.say(f"pulling {wanted}")
    if failed := images.pull([wanted], lambda _words: None):
        raise images.unavailable(env, failed)
    return wanted


def _remove_stale(name: str) -> None:
    """Remove a lock that nobody can hold any more. By id: should another have been made meanwhile, it stays."""
    found = engine.inspect([name])
    if found and stale(engine.container(found[0]), time.time()):
        engine.docker("rm", "--force", found[0]["Id"], check=False)


def stale(container: Container, now: float) -> bool:
    """Whether nobody holds this lock any more, although its container is still there."""
    forgotten = container.state == "created" and now - container.created > _CREATED_SECONDS
    return container.state in _STALE or forgotten


def _await_echo(env: Environment, name: str, child: subprocess.Popen[bytes]) -> None:
    """Wait until a byte comes back from the container: it runs, and it hears us."""
    with contextlib.suppress(OSError):
        _pipe(child.stdin).write(b"\n")
        _pipe(child.stdin).flush()
    if _first_byte(child) == b"\n":
        return
    complaint = _pipe(child.stderr).read().decode(errors="replace")
    if "already in use" in complaint:
        found = engine.inspect([name])
        who = holder_of(engine.container(found[0])).describe(time.time()) if found else "somebody who is just done"
        raise Busy(
            f"{env.name} is being changed: {who}.",
            f"Wait for it to end. If that machine no longer exists: invoke unlock --env {env.name}",
            REFUSED,
        )
    if known := engine.explain(complaint):
        raise known
    raise OpsError(f"The lock {name} could not be taken: {complaint.strip() or 'no answer'}", code=REFUSED)


def _first_byte(child: subprocess.Popen[bytes]) -> bytes:
    answer = _pipe(child.stdout)
    ready, _, _ = select.select([answer], [], [], _START_SECONDS)
    if not ready:
        # An engine that hangs. What the client has to say is read to its end, which must come.
        child.kill()
        return b""
    return answer.read(1)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A stream of a child that was started with a pipe for it."""
    assert stream
    return stream


def _await_end(name: str, child: subprocess.Popen[bytes]) -> None:
    """Wait until the name is free again, so that the next command finds it so."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GONE_SECONDS)

    def gone() -> bool:
        found = engine.inspect([name])
        return not found or found[0]["State"]["Status"] not in {"removing", *_STALE}

    until(gone, _GONE_SECONDS, _PAUSE)
