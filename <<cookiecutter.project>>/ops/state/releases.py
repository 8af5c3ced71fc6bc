"""Releases: what was deployed when, by whom, with which result, and what it takes to go back to it.

They are kept on the machine, in .state/<env>/releases/<number>/: release.json is the entry of the history, compose.json
the configuration as it was resolved then (no secret is in it). The images stay on the engine (see images.prune).
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment, relative, replace_file
from ops.base.errors import FAILED, USAGE, OpsError
from ops.stack import differences, model

# Releases one can go back to: as many as Kamal keeps. Each costs the layers of its images that no other has, some MB.
KEPT = 5
# Entries of the history, also of releases whose images are gone.
REMEMBERED = 50

RUNNING, DEPLOYED, BROKEN, INTERRUPTED = "running", "deployed", "failed", "interrupted"


@dataclass(frozen=True)
class Release:
    """One release. at: seconds since the epoch; by: user@host; revision: of git, "" without.

    changes: reasons by service; result: running, deployed, failed or interrupted; reason: of a failure; images: image
    id by service, once deployed.
    """

    number: int
    at: float
    by: str
    revision: str
    command: str
    changes: Mapping[str, str] = field(default_factory=dict)
    result: str = RUNNING
    reason: str = ""
    seconds: float = 0
    images: Mapping[str, str] = field(default_factory=dict)


def begin(env: Environment, document: Mapping[str, Any], command: str, changes: Mapping[str, str]) -> Release:
    """A new release, on its way. document: the resolved configuration; changes: what it changes, by service."""
    number = max(_numbers(env), default=0) + 1
    release = Release(number, time.time(), author(), revision(env.project_dir), command, dict(changes))
    _folder(env, number).mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(document_path(env, release), json.dumps(document), 0o600)
    _write(env, release)
    return release


def finish(
    env: Environment,
    release: Release,
    result: str,
    *,
    reason: str = "",
    seconds: float = 0,
    images: Mapping[str, str] | None = None,
) -> None:
    """Note how a release ended, and forget the oldest ones."""
    _write(env, replace(release, result=result, reason=reason, seconds=round(seconds, 1), images=dict(images or {})))
    _forget(env)


def history(env: Environment, busy: bool = True) -> list[Release]:
    """All releases that are remembered, oldest first; damaged entries are left out.

    busy: whether a command is at work. If none is, what still says "running" was killed.
    """
    found = []
    for path in (env.state_dir / "releases").glob("*/release.json"):
        try:
            release = Release(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if release.result == RUNNING and not busy:
            release = replace(release, result=INTERRUPTED, reason="killed")
        found.append(release)
    return sorted(found, key=lambda each: each.number)


def current(env: Environment) -> Release | None:
    """The release that runs: the last one that was deployed."""
    return next((each for each in reversed(history(env)) if each.result == DEPLOYED), None)


def kept(env: Environment) -> list[Release]:
    """Releases one can go back to, the current one included, newest first."""
    return [each for each in reversed(history(env)) if each.result == DEPLOYED][:KEPT]


def images_kept(env: Environment) -> set[str]:
    """Ids of the images that the kept releases ran."""
    return {image for release in kept(env) for image in release.images.values()}


def document_path(env: Environment, release: Release) -> Path:
    """Where the resolved configuration of a release is."""
    return _folder(env, release.number) / "compose.json"


def document(env: Environment, release: Release) -> dict[str, Any]:
    """The resolved configuration of a release. Raises OpsError when it is gone or damaged."""
    path = document_path(env, release)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OpsError(
            f"The configuration of release {release.number} cannot be read: {relative(path)}: {error}",
            "`invoke releases` lists the others.",
        ) from None


def target(env: Environment, number: int | None = None) -> Release:
    """The release to go back to: that number, or the newest one before the current one that differs from it.

    Raises OpsError when there is none, or it cannot be gone back to.
    """
    candidates = kept(env)
    listed = f"One can go back to: {', '.join(str(each.number) for each in candidates[1:]) or 'none yet'}."
    if number is None:
        now = candidates[0] if candidates else None
        found = next((each for each in candidates[1:] if now and _differs(env, each, now)), None)
        if not found:
            raise OpsError(f"There is no release of {env.name} before the current one.", listed, FAILED)
    else:
        found = next((each for each in candidates if each.number == number), None)
        if not found:
            raise OpsError(f"One cannot go back to release {number} of {env.name}.", listed, USAGE)
    present = {image["Id"] for image in engine.inspect(sorted(set(found.images.values())), "image")}
    missing = sorted(name for name, image in found.images.items() if image not in present)
    if missing:
        raise OpsError(
            f"The images of release {found.number} are not on this machine any more: {', '.join(missing)}.", listed
        )
    return found


def _differs(env: Environment, one: Release, now: Release) -> bool:
    """Whether going back to a release would change a container. One whose configuration is lost is no way back."""
    try:
        before, after = model.parse(document(env, one)), model.parse(document(env, now))
    except OpsError:
        return False
    return any(
        one.images.get(name) != now.images.get(name)
        or differences.explain(before.document["services"][name], after.document["services"][name])
        for name in before.rolling.keys() & after.rolling.keys()
    )


def revision(folder: Path) -> str:
    """The git revision of a folder, short, with "+changes" when files differ from it; "" without git."""
    try:
        head = engine.run(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], check=False)
        if not head.ok:
            return ""
        dirty = engine.run(["git", "-C", str(folder), "status", "--porcelain"], check=False).stdout.strip()
    except OpsError:
        return ""
    return f"{head.stdout.strip()}{'+changes' if dirty else ''}"


def author() -> str:
    """Who is at work: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as in a container.
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def show(env: Environment, releases: Sequence[Release]) -> None:
    """Print the history as a table, newest last."""
    if not releases:
        console.say(f"{env.name} was never deployed from here")
        return
    back = {each.number for each in kept(env)}
    now = max(back, default=0)
    colours = {DEPLOYED: "green", BROKEN: "red", INTERRUPTED: "yellow", RUNNING: "yellow"}
    console.print_table(
        ("RELEASE", "WHEN", "BY", "REVISION", "COMMAND", "CHANGED", "RESULT", "TOOK"),
        [
            (
                f"{each.number}{' *' if each.number == now else ' <' if each.number in back else ''}",
                time.strftime("%Y-%m-%d %H:%M", time.localtime(each.at)),
                each.by,
                each.revision,
                each.command,
                console.plain(summary(each.changes)),
                f"[{colours.get(each.result, 'yellow')}]{each.result}[/]"
                + (f": {console.plain(each.reason)}" if each.reason else ""),
                console.duration(each.seconds) if each.seconds else "",
            )
            for each in releases
        ],
    )
    console.say("\n* runs now   < `invoke rollback` can go back to it")
    if damaged := _numbers(env) - {each.number for each in releases}:
        console.warn(f"Damaged, and left out: {', '.join(str(number) for number in sorted(damaged))}.")


def summary(changes: Mapping[str, str]) -> str:
    """What changed in a few words: services by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in changes.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())


def as_json(env: Environment, releases: Sequence[Release]) -> dict[str, Any]:
    """The history for programs."""
    back = [each.number for each in kept(env)]
    return {
        "environment": env.name,
        "current": back[0] if back else None,
        "kept": back,
        "releases": [asdict(each) for each in releases],
    }


def _numbers(env: Environment) -> set[int]:
    """Numbers that are taken, by damaged entries too."""
    return {int(path.name) for path in (env.state_dir / "releases").glob("*") if path.name.isdecimal()}


def _folder(env: Environment, number: int) -> Path:
    return env.state_dir / "releases" / str(number)


def _write(env: Environment, release: Release) -> None:
    path = _folder(env, release.number) / "release.json"
    replace_file(path, json.dumps(asdict(release), indent=1), 0o600)


def _forget(env: Environment) -> None:
    everything = history(env)
    keep = {each.number for each in kept(env)}
    for each in everything[:-REMEMBERED]:
        if each.number not in keep:
            shutil.rmtree(_folder(env, each.number), ignore_errors=True)
    for each in everything:
        if each.number not in keep and each.result != RUNNING:
            document_path(env, each).unlink(missing_ok=True)
