"""Reads and changes what is remembered of an environment.

Projects that were deployed by an earlier version kept it in the project's folder, in .state/<env>/. That is adopted
once: the first change writes it to the engine and removes the files.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ops import engine
from ops.base.environments import KUBERNETES, Environment
from ops.state import store
from ops.state.digests import seal, sealed
from ops.state.document import State
from ops.state.places import without_folder

_CONTENT = "content.json"
_RELEASES = "releases"


def load(env: Environment) -> State:
    """What is remembered; also what an earlier version left in the project's folder."""
    found = store.read(env)
    if found is None:
        found = State()
        for folder in _folders(env):
            found = with_releases(found, _earlier(folder, env), folder)
    return with_digests(found, _json(_earlier(env.project_dir, env) / _CONTENT))


def is_settled(env: Environment, state: State) -> bool:
    """Whether all that is known is on the engine, and nothing in the project's folder."""
    return bool(state.generation) and _json(_earlier(env.project_dir, env) / _CONTENT) is None


def update(env: Environment, change: Callable[[State], State]) -> State:
    """Change what is remembered. The caller holds the environment's lock."""
    state = store.write(env, change(load(env)))
    earlier = _earlier(env.project_dir, env)
    with contextlib.suppress(OSError):
        (earlier / _CONTENT).unlink(missing_ok=True)
        kept = {(each["number"], each["at"]) for each in state.releases}
        # Those of another history stay where they are.
        if {(each["number"], each["at"]) for each in _entries(earlier / _RELEASES)} <= kept:
            shutil.rmtree(earlier / _RELEASES, ignore_errors=True)
    return state


def note(env: Environment, mounted: Mapping[str, Mapping[str, str]], existing: Collection[str]) -> None:
    """Remember what containers have mounted, and forget those that are gone.

    mounted: digests of files, not sealed yet, by container id; existing: ids of all containers.
    """

    def change(state: State) -> State:
        known = {**state.mounted, **{key: sealed(state.key, files) for key, files in mounted.items()}}
        return replace(state, mounted={key: files for key, files in known.items() if key in existing})

    update(env, change)


def add(env: Environment, mounted: Mapping[str, Mapping[str, str]]) -> None:
    """Remember that containers have some files mounted, and leave what is remembered of other files and containers.

    mounted: digests of files (digests.file_digest), not sealed yet, by container id and path relative to the project.
    """

    def change(state: State) -> State:
        known = {key: {**state.mounted.get(key, {}), **sealed(state.key, each)} for key, each in mounted.items()}
        return replace(state, mounted={**state.mounted, **known})

    update(env, change)


def with_digests(state: State, found: Any) -> State:
    """With what an earlier version noted of containers, as plain SHA-256; what is known already stays as it is."""
    if not isinstance(found, dict):
        return state
    adopted = {
        container: {path: seal(state.key, digest) for path, digest in noted.items()}
        for container, noted in found.items()
        if isinstance(noted, dict)
    }
    return replace(state, mounted={**adopted, **state.mounted})


def with_releases(state: State, earlier: Path, folder: Path) -> State:
    """With the releases that an earlier version kept in a folder, unless there are some."""
    if state.releases:
        return state
    found = sorted(_entries(earlier / _RELEASES), key=lambda each: each["number"])
    documents = {
        str(each["number"]): without_folder(document, folder)
        for each in found
        if isinstance(document := _json(earlier / _RELEASES / str(each["number"]) / "compose.json"), dict)
    }
    return replace(state, releases=tuple(found), documents=documents)


def _entries(folder: Path) -> Iterator[Mapping[str, Any]]:
    with contextlib.suppress(OSError):
        for each in list(folder.iterdir()):
            entry = _json(each / "release.json")
            if isinstance(entry, dict) and isinstance(entry.get("number"), int) and "at" in entry:
                yield entry


def _json(path: Path) -> Any:
    """The content of a file; None when there is none, or it is damaged or somebody else's."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _earlier(folder: Path, env: Environment) -> Path:
    return folder / ".state" / env.name


def _folders(env: Environment) -> Iterable[Path]:
    """This folder, and those that the containers were made from."""
    if env.engine == KUBERNETES:
        return ()
    return dict.fromkeys([env.project_dir, *(Path(each.folder) for each in engine.containers(env) if each.folder)])
