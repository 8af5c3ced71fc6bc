"""Restores from the catalogue: a moment of the past in the place of what is there.

A container of the part `backup` makes a portable archive of the moment (ops/recovery/materialize.py), and restore.py
puts that in place like any other. It is removed afterwards; kept when the restore failed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ops.base.environments import Environment, relative
from ops.base.errors import FAILED, OpsError
from ops.data import choice, part
from ops.data import restore as restoring
from ops.data.backup import Tick, find
from ops.data.restore import Result
from ops.data.site import Host, Site
from ops.recovery import archive
from ops.recovery.archive import Facts, Manifest, Member
from ops.stack import model
from ops.state import lock

LATEST, NEWEST = "latest", "newest"
# An archive that is being received, or restored from; a restore that was killed may leave one.
_PARTIAL = ".recovered-*.partial"


@dataclass(frozen=True)
class Wanted:
    """A moment. entry: an id or "latest"; until: the moment of PostgreSQL, NEWEST for as far as its log reaches, None
    for that of the entry; target: a part of the location of one, "" for the first."""

    entry: str = LATEST
    until: datetime | str | None = None
    target: str = ""

    @property
    def arguments(self) -> list[str]:
        """What a command of ops.recovery is told."""
        moment = self.until.isoformat() if isinstance(self.until, datetime) else self.until
        options = (("--until", moment or ""), ("--target", self.target))
        return [self.entry or LATEST, *(f"{name}={value}" for name, value in options if value)]


def restore(
    env: Environment,
    wanted: Wanted,
    assume_yes: bool = False,
    *,
    only: Sequence[choice.Part] = (),
    other_environment: bool = False,
    keep_old: bool = False,
    tick: Tick = lambda _words: None,
    site: Site | None = None,
) -> Result:
    """Replace the data of `env` by that of a moment; options as of `restore.restore`.

    Raises OpsError, whose message says which state holds; nothing was touched when the target, its key, the entry or
    the moment is wrong.
    """
    site = site or Host(env)
    with lock.hold(env, f"restore --env {env.name}") as held:
        restoring.undo_killed(env, tick, site)
        remove_left(env, site)
        declared = model.load(env)
        part.require(env, declared)
        site.prepare(declared, tick)
        tick("looking for the backup")
        found = site.call(["materialize", *wanted.arguments, "--plan"], tick)
        containers = site.containers()
        parts = find(env, containers)
        manifest = restoring.chosen(env, planned(found, parts.owned.databases), only)
        restoring.check_fits(env, f"{found['entry']} of {found['target']}", manifest, other_environment)
        work = restoring.Restore(env, Path(), manifest, parts, containers, keep_old, tick, partly=bool(only), site=site)
        work.left_out = (*work.left_out, *found["left_out"]) if not only else work.left_out
        work.check()
        notes = describe(found, work.members)
        if not restoring.agreed(env, notes[0], manifest, work, assume_yes, notes[1:]):
            raise OpsError("Nothing was changed.", code=FAILED)
        held.check()
        with _received(env, site, wanted, found, work.members, bool(only), tick) as (path, manifest):
            result = restoring.replace_data(
                env, path, manifest, held, True, partly=True, keep_old=keep_old, tick=tick, site=site
            )
        absent = (f"{each}: there was none at that moment" for each in work.members if each not in manifest.members)
        return replace(result, source=notes[0], notes=tuple(notes[1:]), left_out=(*work.left_out, *absent))


def planned(found: Mapping[str, Any], databases: Sequence[str]) -> Manifest:
    """The manifest that the archive of a plan will have, as far as it is known. databases: those that are declared."""
    members = dict(found["members"])
    if not found["databases_known"]:
        members |= {archive.database(name): {"database_bytes": 0, "rows": {}} for name in databases}
    facts = Facts(
        found["project"].removesuffix(f"-{found['environment']}"),
        found["environment"],
        datetime.fromisoformat(found["moment"]),
        found["versions"],
    )
    return Manifest(facts, {name: Member(0, "", counts) for name, counts in members.items()})


def describe(found: Mapping[str, Any], members: Sequence[str]) -> list[str]:
    """What a plan brings back, in words; the first line names it."""
    lines = [f"backup {found['entry']} of {found['target']}"]
    databases = archive.POSTGRES in members or archive.databases(members)
    others = [each for each in members if each != archive.POSTGRES and each not in archive.databases(members).values()]
    if databases:
        lines.append(f"PostgreSQL as of {_clock(found['moment'])}")
    if others:
        lines.append(f"{_titles(others)} as of {_clock(found['entry_moment'])}, when the backup was taken")
    return lines


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S} UTC"


def _titles(members: Sequence[str]) -> str:
    names = [title for member, title in ((archive.REDIS, "Redis"), (archive.RABBITMQ, "RabbitMQ")) if member in members]
    names += ["volumes"] if archive.volumes(members) else []
    return ", ".join(names)


@contextlib.contextmanager
def _received(
    env: Environment,
    site: Site,
    wanted: Wanted,
    found: Mapping[str, Any],
    members: Sequence[str],
    all_of_them: bool,
    tick: Tick,
) -> Iterator[tuple[Path, Manifest]]:
    """The archive of a moment, for as long as the block lasts; kept under a name when the block fails.

    all_of_them: refuse one that lacks a member.
    """
    folder = env.project_dir / "backups" / env.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / _PARTIAL.replace("*", found["entry"])
    # The entry that was shown, whatever was taken since.
    exact = replace(wanted, entry=found["entry"])
    arguments = ["materialize", *exact.arguments, *(f"--member={each}" for each in members)]
    kept = False
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, archive.FILE_MODE), "wb") as file:
            site.call(arguments, tick, sink=file)
        manifest = archive.verify(path)
        if all_of_them and (absent := [each for each in members if each not in manifest.members]):
            raise OpsError(f"At that moment there was no {', '.join(absent)}. Nothing was changed.")
        try:
            yield path, manifest
        except OpsError as error:
            kept = True
            named = folder / f"{env.project}-recovered-{found['entry']}.tar"
            path.replace(named)
            raise OpsError(
                error.message,
                f"{error.remedy} The recovered data is kept: invoke restore {relative(named)} --env {env.name}".strip(),
                error.code,
            ) from error
    except OSError as error:
        raise OpsError(
            f"{relative(folder)}: {error.strerror or error}. Nothing was changed.", "Free some space and try again."
        ) from error
    finally:
        if not kept:
            path.unlink(missing_ok=True)


def remove_left(env: Environment, site: Site) -> None:
    """Remove what restores that were killed have left beside the data. The caller holds the lock."""
    site.remove_left()
    for each in (env.project_dir / "backups" / env.name).glob(_PARTIAL):
        each.unlink(missing_ok=True)
