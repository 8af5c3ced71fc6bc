"""Releases: what was deployed when, by whom, with which result, and what it takes to go back to it.

They are remembered on the engine (see store), each with the configuration as it was resolved then (no secret is in it).
Their images stay on the engine too (see images.keep and images.prune).
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import FAILED, USAGE, OpsError
from ops.stack import differences, model
from ops.state import memory
from ops.state.document import State
from ops.state.places import with_folder, without_folder

# Releases that can be rolled back to: as many as Kamal keeps. Each costs the layers that no other has, some MB.
KEPT = 5
# Entries of the history, also of releases whose images are gone.
REMEMBERED = 50

RUNNING, DEPLOYED, BROKEN, INTERRUPTED = "running", "deployed", "failed", "interrupted"
# More or fewer containers of what runs: part of the history, and nothing to roll back to.
SCALED = "scaled"
# Some containers of it got a share of the requests, for a trial.
CANARY = "canary"


@dataclass(frozen=True)
class Release:
    """One release. at: seconds since the epoch; by: user@host; revision: of git, "" without.

    changes: reasons by service; result: running, deployed, scaled, canary, failed or interrupted; reason: of a failure;
    images: image id by service, once deployed; folder: the project's folder it was deployed from.
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
    folder: str = ""


def begin(env: Environment, document: Mapping[str, Any], command: str, changes: Mapping[str, str]) -> Release:
    """A new release, on its way. document: the resolved configuration; changes: what it changes, by service."""
    state = memory.load(env)
    number = 1 + max((each.number for each in entries(state)), default=0)
    release = Release(
        *(number, time.time(), author(), revision(env.project_dir), command, dict(changes)), folder=str(env.project_dir)
    )
    portable = without_folder(document, env.project_dir)

    def add(state: State) -> State:
        return replace(
            state,
            releases=(*state.releases, asdict(release)),
            documents={**state.documents, str(number): portable},
        )

    memory.update(env, add)
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
    ended = replace(release, result=result, reason=reason, seconds=round(seconds, 1), images=dict(images or {}))
    memory.update(env, lambda state: forgetting(with_entry(state, ended)))


def with_entry(state: State, release: Release) -> State:
    """With another entry for a release."""
    others = (each for each in state.releases if each.get("number") != release.number)
    return replace(state, releases=(*others, asdict(release)))


def forgetting(state: State) -> State:
    """Without the oldest entries, and without configurations that cannot be rolled back to."""
    everything = entries(state)
    back = {each.number for each in reachable(everything)}
    remembered = [each for each in everything if each in everything[-REMEMBERED:] or each.number in back]
    useful = {str(each.number) for each in remembered if each.number in back or each.result == RUNNING}
    return replace(
        state,
        releases=tuple(asdict(each) for each in remembered),
        documents={number: each for number, each in state.documents.items() if number in useful},
    )


def entries(state: State) -> list[Release]:
    """The releases that a state remembers, oldest first; what a newer version added to an entry is left out."""
    known = Release.__dataclass_fields__
    found = [Release(**{key: value for key, value in each.items() if key in known}) for each in state.releases]
    return sorted(found, key=lambda each: each.number)


def reachable(everything: Sequence[Release]) -> list[Release]:
    """Those that can be rolled back to, the current one included, newest first."""
    return [each for each in reversed(everything) if each.result == DEPLOYED][:KEPT]


def history(env: Environment, busy: bool = True) -> list[Release]:
    """All releases that are remembered, oldest first.

    busy: whether a command is at work. If none is, what still says "running" was killed.
    """
    found = entries(memory.load(env))
    if busy:
        return found
    return [replace(each, result=INTERRUPTED, reason="killed") if each.result == RUNNING else each for each in found]


def current(env: Environment) -> Release | None:
    """The release that runs: the last one that was deployed."""
    return next(iter(kept(env)), None)


def kept(env: Environment) -> list[Release]:
    """Releases that can be rolled back to, the current one included, newest first."""
    return reachable(history(env))


def images_kept(env: Environment) -> set[str]:
    """Ids of the images that the kept releases ran."""
    return {image for release in kept(env) for image in release.images.values()}


def document(env: Environment, release: Release, folder: Path | None = None) -> dict[str, Any]:
    """The resolved configuration of a release, as it is in a folder (default: this one). Raises OpsError when it is
    not remembered any more."""
    found = resolved(memory.load(env), release, folder or env.project_dir)
    if found is None:
        raise OpsError(
            f"The configuration of release {release.number} of {env.name} is not remembered any more.",
            "`invoke releases` lists the others.",
        )
    return found


def resolved(state: State, release: Release, folder: Path) -> dict[str, Any] | None:
    """The resolved configuration of a release, as it is in a folder; None when it is not remembered any more."""
    kept = state.documents.get(str(release.number))
    return with_folder(kept, folder) if isinstance(kept, dict) else None


def is_documented(env: Environment, release: Release) -> bool:
    """Whether the resolved configuration of a release is remembered."""
    return str(release.number) in memory.load(env).documents


def hashes(env: Environment, release: Release, folder: str = "") -> dict[str, str]:
    """Compose's hash of every service's configuration in a release, as it is in a folder (default: this one)."""
    with as_file(document(env, release, Path(folder) if folder else None)) as path:
        return model.hashes(env, path)


@contextmanager
def as_file(document: Mapping[str, Any]) -> Iterator[Path]:
    """A resolved configuration in a file, for Compose; gone afterwards."""
    with TemporaryDirectory(prefix="release-") as folder:
        path = Path(folder) / "compose.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        yield path


def target(env: Environment, number: int | None = None) -> Release:
    """The release to roll back to: that number, or the newest one before the current one that differs from it.

    Raises OpsError when there is none, or it cannot be rolled back to.
    """
    candidates = kept(env)
    listed = f"Available releases: {', '.join(str(each.number) for each in candidates[1:]) or 'none yet'}."
    if number is None:
        now = candidates[0] if candidates else None
        found = next((each for each in candidates[1:] if now and _differs(env, each, now)), None)
        if not found:
            reason = "no earlier release differs from the current one"
            raise OpsError(f"Cannot roll back {env.name}: {reason}.", listed, FAILED)
    else:
        found = next((each for each in candidates if each.number == number), None)
        if not found:
            raise OpsError(f"Cannot roll back {env.name} to release {number}.", listed, USAGE)
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
        for name in (before.rolling | before.restarting).keys() & (after.rolling | after.restarting).keys()
    )


def revision(folder: Path) -> str:
    """The git revision of a folder, short, with "+changes" when its files differ from it; "" without git.

    The repository may be one around the folder, unless that ignores it.
    """
    git = ("git", "-C", str(folder))
    try:
        head = engine.run([*git, "rev-parse", "--short", "HEAD"], check=False)
        if not head.ok or engine.run([*git, "check-ignore", "--quiet", str(folder.absolute())], check=False).ok:
            return ""
        dirty = engine.run([*git, "status", "--porcelain", "--", "."], check=False).stdout.strip()
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
        console.say(f"{env.name} was never deployed")
        return
    back = {each.number for each in kept(env)}
    now = max(back, default=0)
    colours = {DEPLOYED: "green", SCALED: "green", BROKEN: "red", INTERRUPTED: "yellow", RUNNING: "yellow"}
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
