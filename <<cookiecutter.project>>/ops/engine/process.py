"""Child processes: each in a session of its own, and none outlives the command that started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NoReturn

from ops.base.errors import INTERRUPTED, REFUSED, OpsError
from ops.engine import local
from ops.engine.results import Completed, TimedOut, brief, failure

DOCKER = "docker"

# An engine that is alive answers in milliseconds; a loaded one may need seconds. Longer work passes its own limit. The
# variable is for a machine that is slower still.
ANSWER_SECONDS = float(os.environ.get("ENGINE_ANSWER_SECONDS") or 60)
# How long a child may take to end after Ctrl-C before it is killed. Compose needs a moment to cancel what it began.
FAREWELL_SECONDS = 10

_children: set[subprocess.Popen[Any]] = set()
_children_lock = threading.Lock()
# Set while a pool is being left by an exception: its threads must not start anything more.
_interrupted = threading.Event()


def run(
    argv: Sequence[str],
    *,
    input: str | bytes | None = None,
    timeout: float | None = ANSWER_SECONDS,
    check: bool = True,
    merge: bool = False,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a command and wait for it. timeout in seconds (None: for ever).

    merge: standard error goes to standard output, in the order in which it was written. Raises OpsError when the
    command cannot start, gives no answer in time (TimedOut), or (check) exits non-zero.
    """
    data = input.encode() if isinstance(input, str) else input
    with popen(
        argv,
        stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        environment=environment,
        cwd=cwd,
    ) as child:
        try:
            stdout, stderr = child.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            raise TimedOut(
                f"`{brief(argv)}` gave no answer within {timeout:.0f} s.",
                "Check whether the engine answers: docker info.",
            ) from None
    out, err = (stream.decode(errors="replace") if stream else "" for stream in (stdout, stderr))
    done = Completed(tuple(argv), child.returncode, out, err)
    if check and not done.ok:
        raise failure(done)
    return done


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
    """A child in a session of its own that does not outlive the block, whatever ends it.

    Raises OpsError when the program is not installed, when the engine is on another machine, or in a worker thread of
    a command that is being interrupted.
    """
    if argv[0] == DOCKER:
        local.require(os.environ if environment is None else environment)
    if _interrupted.is_set() and threading.current_thread() is not threading.main_thread():
        raise OpsError("Interrupted.", code=INTERRUPTED)
    try:
        child = subprocess.Popen(
            [*_following(argv[0], environment), *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment) if environment is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise _absent(argv[0]) from None
    with _children_lock:
        _children.add(child)
    try:
        with child:
            try:
                _be_as_nice(child.pid)
                yield child
            except BaseException:
                end([child])
                raise
    finally:
        with _children_lock:
            _children.discard(child)


def _absent(program: str) -> OpsError:
    remedy = "Install Docker Engine 25 or newer with Compose 2.32 or newer." if program == DOCKER else ""
    return OpsError(f"{program} is not installed or not on PATH.", remedy, REFUSED)


def _following(program: str, environment: Mapping[str, str] | None) -> Sequence[str]:
    """What to put before a command line, on Linux, so that the child gets SIGTERM when its parent is killed.

    Otherwise a Compose would go on by itself while the lock of its killed command is free. setpriv is part of
    util-linux; a preexec_fn would do the same, and is not safe in a program with threads.
    """
    path = (os.environ if environment is None else environment).get("PATH")
    # setpriv itself would only say that it could not start the program.
    follows = shutil.which("setpriv", path=path) and shutil.which(program, path=path)
    return ("setpriv", "--pdeathsig", "TERM", "--") if follows else ()


def _be_as_nice(pid: int) -> None:
    """Give a child's session our nice value: with autogroups, it counts only within a session."""
    if nice := os.getpriority(os.PRIO_PROCESS, 0):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A stream of a child that was opened as a pipe."""
    assert stream is not None
    return stream


def end(children: Iterable[subprocess.Popen[Any]]) -> None:
    """End children and all they started: SIGTERM first, SIGKILL to what is left after FAREWELL_SECONDS."""
    children = list(children)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + FAREWELL_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0, deadline - time.monotonic()))
        # What is left of the group: the child itself, or what it started and did not wait for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def end_all() -> None:
    """End every child that still runs (after Ctrl-C, when other threads wait for theirs)."""
    with _children_lock:
        children = list(_children)
    end(children)


@contextlib.contextmanager
def pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for commands that run side by side. Left by an exception such as Ctrl-C, it ends their children first.

    A plain ThreadPoolExecutor would wait for them: Ctrl-C during a pull would take effect when the pull is done.
    """
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    except BaseException:
        _interrupted.set()
        executor.shutdown(wait=False, cancel_futures=True)
        end_all()
        executor.shutdown(wait=True)
        _interrupted.clear()
        raise
    executor.shutdown(wait=True)


def show(argv: Sequence[str], **options: Any) -> int:
    """Run a command that writes to our own output (logs), and return its exit code; options as of `popen`."""
    with popen(argv, **options) as child:
        return child.wait()


def become(argv: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> NoReturn:
    """Go on as another program: the terminal, signals and the exit code are its own from here on.

    Raises OpsError when the program is not installed, or when the engine is on another machine.
    """
    variables = dict(os.environ if environment is None else environment)
    if argv[0] == DOCKER:
        local.require(variables)
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores it, and a program inherits that.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        if cwd:
            os.chdir(cwd)
        os.execvpe(argv[0], list(argv), variables)
    except FileNotFoundError:
        raise _absent(argv[0]) from None
    finally:
        # Reached only when there is no other program: a closed pipe would end this one without a word.
        signal.signal(signal.SIGPIPE, before)


def attended(argv: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Run a command at our own terminal, and return its exit code. A signal that asks us to end is passed on to it.

    Raises OpsError when the program is not installed, or when the engine is on another machine.
    """
    if argv[0] == DOCKER:
        local.require(os.environ if environment is None else environment)
    sys.stdout.flush()
    try:
        child = subprocess.Popen(list(argv), env=dict(environment) if environment is not None else None, cwd=cwd)
    except FileNotFoundError:
        raise _absent(argv[0]) from None
    # Ctrl-C reaches it from the terminal, and twice would mean something else.
    actions = {number: lambda number, _frame: child.send_signal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    actions[signal.SIGINT] = lambda _number, _frame: None
    before = {number: signal.signal(number, action) for number, action in actions.items()}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


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
