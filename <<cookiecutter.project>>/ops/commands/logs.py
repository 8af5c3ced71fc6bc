"""What services write, and the lines among it that a person looks for."""

from __future__ import annotations

import json
import re
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.engine import pipe
from ops.stack import model

# From the least to the most serious, with the words and numbers (pino, bunyan) that programs use for them.
LEVELS = ("debug", "info", "warning", "error", "critical")
_WORDS = {
    "debug": "trace debug verbose 10 20",
    "info": "info information notice log 30",
    "warning": "warn warning 40",
    "error": "error err severe 50",
    "critical": "critical crit fatal panic alert emerg emergency 60",
}
_RANK = {word: LEVELS.index(level) for level, words in _WORDS.items() for word in words.split()}
# Where a JSON line says it.
_KEYS = ("level", "severity", "levelname", "log.level", "lvl")
# In a line that is no JSON: one of the words, as a word, near the beginning: "[error]", "ERROR:", "level=warn".
_NAMED = re.compile(rf"\b({'|'.join(word for word in _RANK if not word.isdigit())})\b", re.IGNORECASE)
_NEAR = 100
# A line of Compose: the container, a bar, the time, the text.
_LINE = re.compile(r"(?P<container>\S+ +\| )(?P<time>\S+) (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True)
class Wanted:
    """Which lines to show. pattern: text of the line (None: any); rank: the least serious level, of LEVELS (0: any)."""

    pattern: re.Pattern[str] | None = None
    rank: int = 0

    def __bool__(self) -> bool:
        return self.pattern is not None or self.rank > 0


def wanted(level: str = "", grep: str = "") -> Wanted:
    """From what was typed. Raises OpsError (USAGE) for an unknown level, and for a pattern that does not parse."""
    rank = _RANK.get(level.lower(), -1) if level else 0
    if rank < 0 or level.isdigit():
        raise OpsError(f'There is no level "{level}".', f"Levels: {', '.join(LEVELS)}.", USAGE)
    try:
        return Wanted(re.compile(grep, re.IGNORECASE) if grep else None, rank)
    except re.error as error:
        raise OpsError(
            f'--grep "{grep}" is no regular expression: {error}.',
            "Put a backslash before ( ) [ ] * + ? . to find it.",
            USAGE,
        ) from None


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
    """Show logs; returns the exit code. tail: lines a container, or "all". since: "10m", "2h" or a time. level, grep:
    only lines of this level and above, and only those in which a regular expression is found."""
    check_tail(tail)
    lines = wanted(level, grep)
    # Also without a service: an engine that does not answer is told in our own words, and not by Compose.
    containers = engine.containers(env)
    if services:
        known = sorted({*model.load(env, all_profiles=True).services, *(each.service for each in containers)})
        check_services(services, known)
    try:
        if lines:
            return _show_wanted(env, services, lines, follow=follow, tail=tail, since=since)
        code = engine.show(logs_argv(env, services, follow=follow, tail=tail, since=since), **engine.surroundings(env))
        # Compose takes a reader that has seen enough for a failure.
        return 0 if code and console.reader_is_gone() else code
    except KeyboardInterrupt:
        # The way to end --follow, and nothing to complain about.
        return 0


def check_tail(tail: str) -> None:
    """Raise OpsError (USAGE) for what is no number of lines."""
    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise OpsError(f'--tail must be a whole number or "all", not "{tail}".', code=USAGE)


def check_services(services: Sequence[str], known: Sequence[str]) -> None:
    """Raise OpsError (USAGE) for a service that there is not."""
    for service in services:
        if service not in known:
            raise OpsError(f'There is no service "{service}".', f"There are: {', '.join(known)}.", USAGE)


def logs_argv(
    env: Environment, services: Sequence[str], *, follow: bool, tail: str, since: str, times: bool = False
) -> list[str]:
    """The command line behind `logs`. times: with the time before each line, and in no colour."""
    options = (
        *("--tail", tail),
        *(("--follow",) if follow else ()),
        *(("--since", since) if since else ()),
        *(("--timestamps",) if times else ()),
        *(() if console.is_terminal() and not times else ("--no-color",)),
    )
    return engine.compose_argv(env, "logs", *options, *services, all_profiles=True)


def _show_wanted(
    env: Environment, services: Sequence[str], lines: Wanted, *, follow: bool, tail: str, since: str
) -> int:
    """The last `tail` of the wanted lines of each container, in the order in which they were written; then, to follow,
    those that come."""
    argv = logs_argv(env, services, follow=follow, tail="all", since=since, times=True)
    with engine.popen(argv, stdout=subprocess.PIPE, **engine.surroundings(env)) as child:
        found = chosen((line.decode(errors="replace") for line in pipe(child.stdout)), lines)
        return child.wait() if show(found, follow, tail) else 0


def show(lines: Iterable[Line], follow: bool, tail: str) -> bool:
    """Show lines as they come, or else the last `tail` of each container in the order of time; False when whoever reads
    them has seen enough."""
    for line in lines if follow else ordered(lines, None if tail == "all" else int(tail)):
        if console.reader_is_gone():
            return False
        console.say(line.container + line.text)
    return True


@dataclass(frozen=True)
class Line:
    """A line of a container. container: as Compose names it, with the bar; time: RFC 3339, so texts sort by it."""

    container: str
    time: str
    text: str


def chosen(lines: Iterable[str], which: Wanted) -> Iterator[Line]:
    """The wanted ones among lines of `docker compose logs --timestamps`. One that says no level, such as those of a
    traceback, has that of the line before it."""
    before: dict[str, int] = {}
    for raw in lines:
        match = _LINE.fullmatch(raw.rstrip("\r\n"))
        if not match:
            continue
        line = Line(match["container"], match["time"], match["text"])
        rank = rank_of(line.text)
        rank = before.get(line.container, _RANK["info"]) if rank is None else rank
        before[line.container] = rank
        if rank >= which.rank and (which.pattern is None or which.pattern.search(line.text)):
            yield line


def rank_of(text: str) -> int | None:
    """The level that a line says, as its place in LEVELS; info for JSON without one, None for text without one."""
    if text.startswith("{"):
        try:
            said: dict[str, Any] = json.loads(text)
        except ValueError:
            pass
        else:
            words = (str(said[key]).lower() for key in _KEYS if key in said)
            return next((_RANK[word] for word in words if word in _RANK), _RANK["info"])
    match = _NAMED.search(text[:_NEAR])
    return _RANK[match[1].lower()] if match else None


def ordered(lines: Iterable[Line], last: int | None) -> list[Line]:
    """By time; of each container the last so many (None: all)."""
    kept: dict[str, deque[Line]] = {}
    for line in lines:
        kept.setdefault(line.container, deque(maxlen=last)).append(line)
    return sorted((line for each in kept.values() for line in each), key=lambda line: line.time)
