"""What pods write, in the lines and with the filters of one host."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.commands import logs as usual
from ops.engine import Container, kubectl
from ops.kubernetes import running
from ops.stack.model import Stack

# How often it is looked for new pods while logs are followed.
_LOOK_SECONDS = 5.0
_DURATION = re.compile(r"(\d+(\.\d+)?(h|m|s))+")


def logs(
    env: Environment,
    services: Sequence[str] = (),
    *,
    follow: bool = False,
    tail: str = "100",
    since: str = "",
    level: str = "",
    grep: str = "",
) -> int:
    """Show logs; returns the exit code. Arguments and errors as of logs on one host."""
    usual.check_tail(tail)
    wanted = usual.wanted(level, grep)
    seen = running.glance(env)
    usual.check_services(services, sorted(seen.stack.services))
    chosen = [each for each in _pods(seen.containers) if not services or each.service in services]
    options = options_of(tail="all" if wanted else tail, since=since)
    try:
        lines = _follow(env, seen.stack, services, chosen, options) if follow else _kept(chosen, options)
        usual.show(usual.chosen(lines, wanted), follow, tail)
    except KeyboardInterrupt:
        # The way to end --follow, and nothing to complain about.
        engine.end_all()
    return 0


def options_of(*, tail: str, since: str) -> list[str]:
    """Options of `kubectl logs`. since: as Docker takes it, a duration or a time."""
    many = "-1" if tail == "all" else tail
    moment = ""
    if since:
        moment = f"--since={since}" if _DURATION.fullmatch(since) else f"--since-time={_rfc(since)}"
    return ["--timestamps", f"--tail={many}", *([moment] if moment else [])]


def _rfc(moment: str) -> str:
    """A time with its zone and seconds, as the API server wants it: "2026-01-31T12:00" is one of this machine."""
    try:
        return datetime.fromisoformat(moment).astimezone().isoformat(timespec="seconds")
    except ValueError:
        raise OpsError(
            f'--since "{moment}" is neither a duration nor a time.', "For example: 10m, 2h, 2026-01-31T12:00", USAGE
        ) from None


def _pods(containers: Sequence[Container]) -> list[Container]:
    """Those that have a log: all but the last runs of scheduled jobs, whose pods are listed by their own names."""
    return [each for each in containers if kubectl.pod(each.id) and (each.started or each.restarts)]


def _title(each: Container, width: int) -> str:
    """How a line of a container begins, as Compose would write it."""
    return f"{f'{each.service}-{each.number}':<{width}}  | "


def _argv(each: Container, options: Sequence[str]) -> list[str]:
    pod = kubectl.pod(each.id)
    assert pod
    return kubectl.logs_argv(pod, *options)


def _kept(chosen: Sequence[Container], options: Sequence[str]) -> Iterator[str]:
    """The lines of containers, each after its title."""
    width = max((len(f"{each.service}-{each.number}") for each in chosen), default=0)

    def read(each: Container) -> list[str]:
        done = engine.run(_argv(each, options), check=False, timeout=None)
        return [f"{_title(each, width)}{line}" for line in done.stdout.splitlines()]

    with engine.pool(8) as pool:
        for lines in pool.map(read, chosen):
            yield from lines


def _follow(
    env: Environment, declared: Stack, services: Sequence[str], first: Sequence[Container], options: Sequence[str]
) -> Iterator[str]:
    """The lines of containers as they come; also of pods that come later, from their first line on."""
    lines: queue.Queue[str] = queue.Queue()
    width = max((len(f"{each.service}-{each.number}") for each in first), default=12)

    def pump(each: Container, argv: Sequence[str]) -> None:
        with engine.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            for raw in engine.pipe(child.stdout):
                lines.put(f"{_title(each, width)}{raw.decode(errors='replace')}")

    known: set[str] = set()

    def start(found: Sequence[Container], *words: str) -> None:
        for each in found:
            if each.id not in known:
                known.add(each.id)
                threading.Thread(target=pump, args=(each, _argv(each, words)), daemon=True).start()

    start(first, *options, "--follow")
    while True:
        try:
            yield lines.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            if console.reader_is_gone():
                return
            found = _pods(running.containers(env, declared))
            start([each for each in found if not services or each.service in services], "--timestamps", "--follow")
