"""What `invoke backup` and `invoke restore` do for their options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import FAILED, OK, USAGE, OpsError
from ops.data import backup as backups
from ops.data import catalogue, choice, configuration, entries, moment, scratch
from ops.data import restore as restoring
from ops.data.entries import Wanted
from ops.data.site import Host, Site
from ops.stack import model
from ops.state import lock

SCRATCH = "scratch"


@dataclass(frozen=True)
class BackupOptions:
    """The options of `invoke backup`, as they were typed. verify: an id or latest; True for all that never were."""

    list: bool = False
    verify: str | bool = ""
    full: bool = False
    init: bool = False
    portable: bool = False
    json: bool = False


def backup(env: Environment, said: BackupOptions, site: Site | None = None) -> int:
    """Do what the options say; the exit code. site: where the data is. Raises OpsError (USAGE) when they do not go
    together."""
    taking = [name for name, on in (("--full", said.full), ("--init", said.init)) if on]
    others = (("--list", said.list), ("--verify", said.verify), ("--portable", said.portable))
    chosen = [*taking, *(name for name, on in others if on)]
    if len(chosen) > 1 and chosen != taking:
        raise OpsError(f"{' and '.join(chosen)} do not go together.", "Run them one after the other.", USAGE)
    declared, site = model.load(env), site or Host(env)
    if chosen and not said.portable:
        catalogue.require(env, declared)
    if said.portable or not catalogue.has(declared):
        return _archived(env, site, said.json, catalogue.has(declared))
    if said.list:
        with console.activity("looking at the targets", quiet=True) as tick:
            site.prepare(declared, tick)
            listed = catalogue.listing(env, tick, site)
        _print(listed) if said.json else catalogue.show_listing(listed)
        return OK
    if said.verify:
        with console.activity("verifying", quiet=said.json) as tick:
            site.prepare(declared, tick)
            proven = catalogue.verify(env, "" if said.verify is True else str(said.verify), tick, site)
        if not said.json:
            return OK if catalogue.show_verified(proven) else FAILED
        _print(proven)
        return OK if all(each["good"] for each in proven) else FAILED
    with console.activity(f"backing up {env.name}", quiet=said.json) as tick:
        site.prepare(declared, tick)
        taken = catalogue.take(env, said.full, said.init, tick, site)
    _print(taken) if said.json else catalogue.show_taken(env, taken)
    return OK


def _archived(env: Environment, site: Site, as_json: bool, with_part: bool) -> int:
    """One portable archive, under the lock of the environment."""
    with (
        lock.hold(env, f"backup --env {env.name}"),
        console.activity(f"backing up {env.name}", quiet=as_json) as tick,
    ):
        result = backups.create(env, tick, site)
    _print(backups.as_json(result)) if as_json else backups.show(result)
    if not (with_part or as_json):
        console.say(
            "This is one archive on this machine. Backups on a schedule, encrypted, elsewhere and proven by restoring"
            " them: docs/recovery.md",
            "dim",
        )
    return OK


@dataclass(frozen=True)
class Options:
    """The options of `invoke restore`, as they were typed."""

    archive: str = ""
    to: str = ""
    only: str = ""
    into: str = ""
    target: str = ""
    drop_scratch: bool = False
    undo: bool = False
    configuration: bool = False
    yes: bool = False
    json: bool = False
    other_environment: bool = False
    keep_old: bool = False


def restore(env: Environment, said: Options, site: Site | None = None) -> None:
    """Do what the options say. site: where the data is. Raises OpsError (USAGE) when they do not go together."""
    refuse_contradictions(said)
    tick = console.ticker(said.json)
    only = choice.parse(said.only)
    if said.undo:
        if not restoring.undo(env, tick, site):
            console.say("nothing to undo: no restore was killed")
    elif said.drop_scratch:
        console.say("removed" if scratch.drop(env) else "nothing to remove: there is no server beside the stack")
    elif is_archive(env, said.archive):
        if other := [name for name, on in (("--to", said.to), ("--into", said.into), ("--target", said.target)) if on]:
            raise OpsError(
                f"{said.archive} is an archive of one moment; {other[0]} goes with a backup of the catalogue.",
                "See: invoke backup --list",
                USAGE,
            )
        result = restoring.restore(
            env,
            Path(said.archive),
            said.yes,
            only=only,
            other_environment=said.other_environment,
            keep_old=said.keep_old,
            tick=tick,
            site=site,
        )
        _print(restoring.as_json(result)) if said.json else restoring.show(result)
    else:
        wanted = Wanted(said.archive or entries.LATEST, _until(said.to), said.target)
        if said.configuration:
            files = configuration.restore(env, wanted, tick)
            _print(configuration.as_json(files)) if said.json else configuration.show(files, env)
        elif said.into:
            server = scratch.start(env, wanted, only, tick)
            _print(scratch.as_json(server, env)) if said.json else scratch.show(server, env)
        else:
            result = entries.restore(
                env,
                wanted,
                said.yes,
                only=only,
                other_environment=said.other_environment,
                keep_old=said.keep_old,
                tick=tick,
                site=site,
            )
            _print(restoring.as_json(result)) if said.json else restoring.show(result)


def refuse_contradictions(said: Options) -> None:
    """Raise OpsError (USAGE) for options that have no meaning together, and for a command that names nothing."""
    alone = [name for name, on in (("--undo", said.undo), ("--drop-scratch", said.drop_scratch)) if on]
    if alone and (said.archive or said.to or said.only or said.into or said.configuration or len(alone) > 1):
        raise OpsError(f"{alone[0]} stands alone.", f"invoke restore {alone[0]}", USAGE)
    if said.into not in {"", SCRATCH}:
        raise OpsError(f'--into "{said.into}" is unknown.', f"Write --into {SCRATCH}.", USAGE)
    if said.configuration and (said.to or said.only or said.into):
        raise OpsError("--configuration goes with a backup and --target only.", "", USAGE)
    if not (alone or said.archive or said.to or said.configuration):
        raise OpsError(
            "What is to be restored?",
            "invoke restore latest, an id of `invoke backup --list`, a file of backups/, or --to TIME.",
            USAGE,
        )


def is_archive(env: Environment, name: str) -> bool:
    """Whether a file is meant, and no backup of the catalogue."""
    folder = env.project_dir / "backups" / env.name
    return bool(name) and ("/" in name or "." in name or Path(name).exists() or (folder / name).exists())


def _until(text: str) -> datetime | str | None:
    if not text:
        return None
    return moment.parse(text, datetime.now().astimezone()) or entries.NEWEST


def _print(document: object) -> None:
    console.say(json.dumps(document, indent=2))
