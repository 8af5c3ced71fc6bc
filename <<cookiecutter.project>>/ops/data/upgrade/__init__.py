"""Upgrade PostgreSQL to another major version, go back, remove what was kept for that: what is asked and said.

How it is done, and why so, is in changeover.py.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from ops import engine
from ops.base import console, findings, signals
from ops.base.environments import Environment, relative
from ops.base.errors import INTERRUPTED, REFUSED, USAGE, OpsError
from ops.data.upgrade.steps import COMMAND, PRIMARY, RATE, Changeover, Result
from ops.parts.postgres import majors
from ops.parts.postgres.majors import ROOT, SETTING
from ops.rollout import preflight
from ops.stack import images, model
from ops.state import lock

# What stopping, starting and the standby's copy take beside the data, for what is said beforehand.
_FIXED_SECONDS = 60


def command(env: Environment, reference: str, *, back: bool, tidy: bool, assume_yes: bool) -> None:
    """Do what was asked for, one of three. Raises OpsError (usage) for several at once."""
    if sum((back, tidy, bool(reference))) > 1:
        raise OpsError("--image, --back and --tidy exclude each other.", f"See: invoke --help {COMMAND}", USAGE)
    if back:
        go_back(env, assume_yes)
    elif tidy:
        remove_kept(env, assume_yes)
    else:
        upgrade(env, reference, assume_yes)


def upgrade(env: Environment, reference: str = "", assume_yes: bool = False) -> None:
    """Bring the data to the major version of an image.

    reference: the image; it goes into the .env file. "": the one that stands there. Raises OpsError: REFUSED with
    nothing touched; otherwise the old database serves as before, or the message says what holds.
    """
    findings.refuse([each for each in preflight.check_settings(env) if each.status == findings.FAILED])
    with _work(env, COMMAND) as work:
        if work.holding.begun and _recover(work):
            return
        wanted = _wanted(env, reference or env.values.get(SETTING, ""))
        current = work.holding.current
        if wanted.major == current:
            console.say(f"nothing to upgrade: {env.name} and {wanted.reference} are PostgreSQL {current}", "green")
            if kept := work.holding.kept:
                console.say(f"kept from before: {', '.join(kept)}; --back returns to it, --tidy removes it")
            return
        if wanted.major < current:
            raise OpsError(
                f"{env.name} holds a database of PostgreSQL {current}; {wanted.reference} is older and cannot read it.",
                f"Set {SETTING} back. Where the older database was kept: invoke {COMMAND} --back --env {env.name}",
                REFUSED,
            )
        if majors.running(engine.containers(env)).get(PRIMARY) != current:
            # The new image was started by hand, and refused the volume.
            console.say(f"{PRIMARY} does not run PostgreSQL {current}: starting it again first")
            work.settle()
        work.check()
        if not _agreed(env, work, wanted, assume_yes):
            raise OpsError("Nothing was changed.")
        _show(env, work.upgrade(wanted))


def go_back(env: Environment, assume_yes: bool = False) -> None:
    """Return to the database before the last upgrade. Raises OpsError when it is not kept, or nobody agrees."""
    with _work(env, f"{COMMAND} --back") as work:
        holding, began = work.holding, time.monotonic()
        if holding.begun and (holding.begun.direction == "up") != holding.reached:
            # An upgrade that did not get there, or a way back that did.
            if not holding.reached:
                work.declare_before()
            work.settle()
        else:
            _agree_to_go_back(env, work, assume_yes)
            began = time.monotonic()
            with signals.ignored(signal.SIGHUP):
                work.go_back(holding.origins[holding.current])
        took = console.duration(time.monotonic() - began)
        console.say(f"{env.name} is back on PostgreSQL {work.holding.current} ({took})", "green")
        if kept := work.holding.kept:
            console.say(f"kept: {', '.join(kept)}; invoke {COMMAND} --tidy --env {env.name} removes it")


def remove_kept(env: Environment, assume_yes: bool = False) -> None:
    """Remove what upgrades and ways back have kept, after asking: from then on there is no way back."""
    with _work(env, f"{COMMAND} --tidy") as work:
        if work.holding.begun:
            raise OpsError(
                f"{env.name} has a change of PostgreSQL's major that did not come to its end.",
                f"Finish it first: invoke {COMMAND} --env {env.name}",
                REFUSED,
            )
        doomed = {each: work.of(each).kept for each in work.servers}
        if not any(doomed.values()):
            console.say(f"nothing to remove: {env.name} keeps no older database")
            return
        console.say("These folders will be removed, and with them the way back:")
        for server, folders in doomed.items():
            for folder in folders:
                size = int(work.in_volume(server, 'du -sk "$1" | cut -f1', folder)) * 1024
                console.say(f"  {server.volume}  {folder}  {console.size(size)}")
        if not console.confirm(f"Remove them from {env.name}?", assume_yes, expect=_expect(env)):
            raise OpsError("Nothing was removed.")
        for server, folders in doomed.items():
            script = 'rm -rf -- "$@" .aside; rm -f */upgraded-from; rmdir -- */ 2> /dev/null || :'
            work.in_volume(server, script, *folders)
        console.say(f"removed; {env.name} runs PostgreSQL {work.holding.current}", "green")


# ── before anything is touched ────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _work(env: Environment, purpose: str) -> Iterator[Changeover]:
    """The lock, and what there is under it. Raises OpsError when there is no database, INTERRUPTED after Ctrl-C."""
    with lock.hold(env, f"{purpose} --env {env.name}") as held:
        work = Changeover(env, held, majors.servers(model.load(env)))
        if not any(each.service == PRIMARY for each in work.servers):
            raise OpsError(f"{env.name} declares no {PRIMARY} with a volume at {ROOT}.", code=REFUSED)
        work.look()
        if not work.holding.current:
            raise OpsError(
                f"{env.name} has no database in {ROOT}/<major>/docker.",
                f"invoke deploy --env {env.name}; a volume with another layout: docs/upgrade-database.md.",
                REFUSED,
            )
        try:
            yield work
        except KeyboardInterrupt:
            engine.end_all()
            raise OpsError(
                f"Interrupted while {work.doing}.",
                f"invoke {COMMAND} --env {env.name} completes or undoes it.",
                INTERRUPTED,
            ) from None


def _recover(work: Changeover) -> bool:
    """Complete or undo an interrupted upgrade, so that the stack serves again; whether it was completed."""
    reached = work.holding.reached
    console.say(f"an earlier {COMMAND} was interrupted; completing or undoing it first")
    work.settle()
    console.say(f"{work.env.name} runs PostgreSQL {work.holding.current}", "green")
    return reached


def _wanted(env: Environment, reference: str) -> majors.Image:
    _fetch(env, reference)
    wanted = majors.image(reference)
    majors.refuse_unusable(wanted)
    return wanted


def _fetch(env: Environment, reference: str) -> None:
    if not engine.image_ids([reference]):
        with console.activity(f"pulling {reference}") as tick:
            failed = images.pull([reference], tick)
        if failed:
            raise images.unavailable(env, failed)


def _expect(env: Environment) -> str:
    return env.name if env.name == "prod" else ""


def _agreed(env: Environment, work: Changeover, wanted: majors.Image, assume_yes: bool) -> bool:
    if not assume_yes:
        size, current = work.size(), work.holding.current
        away = console.duration(_FIXED_SECONDS + size / RATE)
        console.say(f"{env.name} moves from PostgreSQL {current} to {wanted.major} ({wanted.reference}):")
        console.say("  a backup is made and verified while the site serves;")
        console.say(f"  then the site is closed while {console.size(size)} are copied and compared: about {away};")
        console.say(f"  {majors.folder_of(current)} stays as it is; after any failure it is used again.")
    return console.confirm(f"Upgrade the database of {env.name}?", assume_yes, expect=_expect(env))


def _agree_to_go_back(env: Environment, work: Changeover, assume_yes: bool) -> None:
    holding = work.holding
    if holding.current not in holding.origins or not holding.databases[:-1]:
        raise OpsError(
            f"{env.name} cannot go back: beside PostgreSQL {holding.current} no older database is kept.",
            "",
            REFUSED,
        )
    before = holding.origins[holding.current]
    _fetch(env, before)
    if not assume_yes:
        when = work.in_volume(work.primary, 'date -u -r "$1" "+%F %H:%M UTC"', f"{holding.current}/upgraded-from")
        console.say(f"{env.name} returns to {before} and its database as it was at {when.strip()}.")
        console.say("What was written since is not in it.", "yellow")
        console.say(f"PostgreSQL {holding.current}'s folder is put aside. The site is closed for about a minute.")
    if not console.confirm(f"Take {env.name} back?", assume_yes, expect=_expect(env)):
        raise OpsError("Nothing was changed.")


def _show(env: Environment, result: Result) -> None:
    console.say(
        f"{env.name} runs PostgreSQL {result.after} (before: {result.before}): {result.rows} rows in"
        f" {result.tables} tables, {console.size(result.size)}, all tables compared, in"
        f" {console.duration(result.seconds)}; the site was closed for {console.duration(result.interruption)}",
        "green",
    )
    console.say(f"  backup      {relative(result.archive)}")
    console.say(f"  kept        {result.kept}, in the volume of each server")
    console.say(f"  way back    invoke {COMMAND} --back --env {env.name}")
    console.say(f"  free space  invoke {COMMAND} --tidy --env {env.name}, once you trust the new one")
