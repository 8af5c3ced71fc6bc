"""The catalogue of backups as commands use it: take an entry by hand, list what there is, prove an entry.

The work is done in containers of the part `backup` (ops/recovery). The targets and their keys are enough: the stack
need not run for a listing or a proof.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ops.base import console
from ops.base.console import amount
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.data.backup import Tick
from ops.data.site import Host, Site
from ops.stack.model import Stack

# It has the networks of the servers and the volumes.
TAKER = "backup"
FILE = "docker-compose.backup.yml"

Document = Mapping[str, Any]


def has(declared: Stack) -> bool:
    """Whether the environment has the part `backup`."""
    return TAKER in declared.services


def require(env: Environment, declared: Stack) -> None:
    """Raise OpsError (REFUSED) when the environment does not have the part."""
    if not has(declared):
        raise OpsError(
            f"{env.name} has no catalogue of backups: COMPOSE_FILE does not name {FILE}.",
            f"Add it, with docker-compose.backup-volumes.yml and docker-compose.scheduler.yml, to COMPOSE_FILE in"
            f" config/{env.name}/.env, then: invoke secret-init, invoke deploy (docs/recovery.md). Without it:"
            " invoke backup --portable",
            REFUSED,
        )


def take(env: Environment, full: bool, init: bool, tick: Tick, site: Site | None = None) -> Document:
    """Take an entry and bring it to every target; what is in it. full: all of PostgreSQL, not only what has changed;
    init: begin anew at targets whose repository is gone.

    Raises OpsError; an entry that was taken stays when only a copy of it failed.
    """
    arguments = ["take", *(["--full"] if full else []), *(["--init"] if init else [])]
    found: Document = (site or Host(env)).call(arguments, tick, service=TAKER, attended=False)
    return found


def listing(env: Environment, tick: Tick, site: Site | None = None) -> Document:
    """What there is at every target. Raises OpsError when the part cannot be asked; a target that cannot says so."""
    found: Document = (site or Host(env)).call(["list"], tick, attended=False)
    return found


def verify(env: Environment, wanted: str, tick: Tick, site: Site | None = None) -> Sequence[Document]:
    """Restore entries in a container and compare: one, or all that were never proven (""); what came of it, each.

    Raises OpsError when that could not be tried.
    """
    arguments = ["verify", *([wanted] if wanted else [])]
    found: Any = (site or Host(env)).call(arguments, tick, attended=False, verdict=True)
    return list(found)


# ── presenting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def show_taken(env: Environment, entry: Document) -> None:
    """An entry that was just taken."""
    parts = entry["parts"].values()
    size, added = (sum(each[key] for each in parts) for key in ("size", "added"))
    seconds = (_moment(entry["ended"]) - _moment(entry["began"])).total_seconds()
    kind = next((each["kind"] for each in parts if each["kind"]), "full")
    console.say(
        f"backup {entry['id']}: {kind}, {console.size(size)}, of which {console.size(added)} were stored"
        f" ({console.duration(seconds)})",
        "green",
    )
    for each in entry["left_out"]:
        console.say(f"  not in it: {each}", "dim")
    console.say(f"Prove it by restoring it: invoke backup --verify {entry['id']} --env {env.name}")


def show_listing(found: Document, now: float | None = None) -> None:
    """Everything at every target. now: seconds since the epoch."""
    now = time.time() if now is None else now
    for number, each in enumerate(found["targets"]):
        if number:
            console.say()
        if each["error"]:
            console.say(f"{each['target']}: {each['error']} {each['remedy']}".rstrip(), "red")
            continue
        console.say(f"{each['target']}: {amount(len(each['entries']), 'backup')}; {_reach(each, now)}", "bold")
        for words in each["damaged"]:
            console.say(f"  damaged: {words}", "red")
        if each["entries"]:
            console.print_table(("BACKUP", "AGE", "KIND", "SIZE", "STORED", "VERIFIED"), _rows(each["entries"], now))


def _reach(target: Document, now: float) -> str:
    """Which moments can be recovered, in words."""
    if not target["window"]:
        if target["damaged"] and not target["entries"]:
            return "none of those that are there can be read"
        return "moments in between cannot be recovered" if target["entries"] else "take one: invoke backup"
    since, until = _moment(target["window"]["from"]), _moment(target["window"]["until"])
    behind = max(0.0, now - until.timestamp())
    return f"every moment from {_clock(since)} to {_clock(until)} ({console.duration(behind)} ago) can be recovered"


def _rows(entries: Sequence[Document], now: float) -> Iterator[Sequence[str]]:
    for each in entries:
        age = console.duration(max(0.0, now - _moment(each["ended"]).timestamp()))
        yield (
            each["id"],
            age,
            each["kind"],
            console.size(each["size"]),
            console.size(each["added"]),
            _verdict(each["verification"], now),
        )


def _verdict(found: Document | None, now: float) -> str:
    if found is None:
        return "[yellow]not yet[/]"
    ago = f"{console.duration(max(0.0, now - _moment(found['at']).timestamp()))} ago"
    if found["good"]:
        return f"[green]{ago}[/]"
    problem = console.plain(str(found["problems"][0])) if found["problems"] else "problems"
    return f"[red]failed {ago}: {problem}[/]"


def show_verified(found: Sequence[Document]) -> bool:
    """What came of verifications; returns whether all were good."""
    if not found:
        console.say("Every backup has been verified before. To do it again: invoke backup --verify latest")
    for each in found:
        if each["good"]:
            words = f"backup {each['entry']} was restored and is what was saved"
            console.say(f"{words} ({console.duration(each['seconds'])})", "green")
            continue
        console.say(f"backup {each['entry']} is damaged: {amount(each['count'], 'difference')}", "red")
        for problem in each["problems"]:
            console.say(f"  {problem}")
    return all(each["good"] for each in found)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
