"""What is remembered of an environment, as one document, and how it is written down. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ops.base.errors import REFUSED, OpsError

_FORMAT = 1


@dataclass(frozen=True)
class State:
    """What is remembered.

    generation: how often it was written; key: of the digests of mounted files (see digests); mounted: digests by
    container id and path; releases: entries of the history, oldest first; documents: the resolved configuration by
    release number.
    """

    generation: int = 0
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    mounted: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    releases: tuple[Mapping[str, Any], ...] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)


def encode(state: State) -> str:
    """A state as text: a line about the rest, and the rest."""
    body = base64.b64encode(zlib.compress(json.dumps(asdict(state)).encode())).decode()
    head = {"format": _FORMAT, "generation": state.generation, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return f"{json.dumps(head)}\n{body}\n"


def decode(text: str) -> State | None:
    """The state in a text; None when it is damaged. Raises OpsError (REFUSED) when a newer version wrote it."""
    head, _, body = text.partition("\n")
    try:
        known = json.loads(head)
        if known["format"] > _FORMAT:
            raise OpsError(
                "This environment was deployed by a newer version of these commands.",
                "Update this checkout first: git pull.",
                REFUSED,
            )
        if known["sha256"] != hashlib.sha256(body.strip().encode()).hexdigest():
            return None
        found = State(**json.loads(zlib.decompress(base64.b64decode(body))))
    except (ValueError, KeyError, TypeError, zlib.error):
        return None
    return replace(found, releases=tuple(found.releases))


def newest(texts: Iterable[str]) -> State | None:
    """The newest of several states; damaged ones do not count."""
    found = [state for text in texts if (state := decode(text))]
    return max(found, key=lambda each: each.generation, default=None)
