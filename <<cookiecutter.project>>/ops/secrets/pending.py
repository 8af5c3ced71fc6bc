"""A rotation that has begun, told by the files beside a secret.

NAME.next holds the new value from the first step to the last, NAME.previous the old one from the moment before NAME is
overwritten. Both hold values and nothing else: which step comes next is found by asking the parts what they accept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.secrets.files import path_of, read

if TYPE_CHECKING:
    from ops.base.environments import Environment

NEXT, PREVIOUS = ".next", ".previous"
SUFFIXES = (NEXT, PREVIOUS)


def pending(env: Environment, name: str) -> dict[str, str]:
    """The values of a rotation of `name` that has begun, by suffix; empty when none has."""
    return {suffix: read(env, name + suffix) for suffix in SUFFIXES if path_of(env, name + suffix).exists()}
