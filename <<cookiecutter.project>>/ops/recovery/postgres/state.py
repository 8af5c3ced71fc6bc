"""What the WAL receiver knows, in a file of its volume: for the runs that take backups, and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ops.base.files import replace_file
from ops.recovery.settings import Paths


@dataclass(frozen=True)
class Shipped:
    """WAL at a target. until: everything that was written before this moment (seconds since the epoch) is there."""

    position: int = 0
    until: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Gap:
    """WAL that was never received, between two positions: no moment in it can be recovered. at: when it was noticed."""

    first: int
    last: int
    at: float
    reason: str


@dataclass(frozen=True)
class State:
    """position: up to which WAL is in the volume; until: everything written before this moment is there; shipped: by
    location of the target; error: why nothing is being received."""

    position: int = 0
    until: float = 0.0
    timeline: int = 0
    shipped: Mapping[str, Shipped] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    error: str = ""


def stream(paths: Paths) -> Path:
    """Where pg_receivewal writes."""
    return paths.wal / "stream"


def kept(paths: Paths) -> Path:
    """Where WAL is put aside that pg_receivewal must not continue: of before a gap, of an abandoned timeline."""
    return paths.wal / "kept"


def former(paths: Paths, system: int) -> Path:
    """Where the WAL of another database system is put: of before PostgreSQL was set up anew."""
    return paths.wal / f"former-{system}"


def since(paths: Paths) -> float:
    """When the volume was first used, in seconds since the epoch."""
    path = paths.wal / "since"
    if not path.exists():
        path.touch()
    return path.stat().st_mtime


def read(paths: Paths) -> State:
    """What was written last; an empty one when nothing was."""
    try:
        found = json.loads((paths.wal / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return State()
    shipped = {name: Shipped(**each) for name, each in found.pop("shipped").items()}
    gaps = tuple(Gap(**each) for each in found.pop("gaps"))
    return State(**found, shipped=shipped, gaps=gaps)


def write(paths: Paths, state: State) -> None:
    """Replace the file in one step."""
    replace_file(paths.wal / "state.json", json.dumps(asdict(state)), 0o644)
