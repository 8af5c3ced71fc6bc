"""A restore that is under way: what it has begun, kept on the engine until that is finished or undone.

One that is killed leaves things beside the data in use, or, while it swaps, old and new data mixed. Whoever comes next
finds here what to undo.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.state import store

_NOTE = "swap"


@dataclass(frozen=True)
class Swap:
    """What a restore has begun.

    swapping: whether the data in use was touched, or is about to be; before that all is only prepared beside it. stamp:
    the ending of the databases' names on the way; databases: pairs of name and member of the archive; volumes: as the
    Compose files call them; cache: the service that is the primary of Redis, "" when Redis is not restored; roles:
    created by it; services: ids of the containers that it stops; holder: who began it, in words.
    """

    swapping: bool
    stamp: str
    databases: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    cache: str = ""
    roles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    holder: str = ""


def begin(env: Environment, swap: Swap) -> None:
    """Note what is about to be done, before any of it is."""
    store.put_note(env, _NOTE, json.dumps(asdict(swap)))


def end(env: Environment) -> None:
    """Note that it is finished, or undone."""
    # A file of the volume can be replaced, and not removed, by `docker cp`.
    store.put_note(env, _NOTE, "")


def begun(env: Environment) -> Swap | None:
    """What a restore began and neither finished nor undid; None when there is nothing of the kind."""
    try:
        found = json.loads(store.note(env, _NOTE))
        return Swap(
            **{
                **found,
                "databases": tuple((name, member) for name, member in found["databases"]),
                **{key: tuple(found[key]) for key in ("volumes", "roles", "services")},
            }
        )
    # Also one that was killed while it wrote this: before it began anything, or after it had finished.
    except (ValueError, KeyError, TypeError):
        return None


def refuse(env: Environment) -> None:
    """Raise OpsError (REFUSED) while a restore that was killed has left old and new data mixed."""
    if (swap := begun(env)) and swap.swapping:
        raise OpsError(
            f"A restore of {env.name} ({swap.holder}) was killed while it swapped the data, which is a mix of old and"
            " new now.",
            f"invoke restore --undo --env {env.name} puts the old data back.",
            REFUSED,
        )
