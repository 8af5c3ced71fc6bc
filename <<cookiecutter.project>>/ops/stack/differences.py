"""Why a service changes: its old declaration against the new one, in words for the person who is about to deploy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ops.base import console

# Compose leaves these out of its hash, so they alone change no container; replicas are told by the plan.
_NO_CHANGE = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles"})
_VALUE_LENGTH = 60
# What one of them is called, where each has a name of its own.
_KINDS = {"environment": "", "labels": "label ", "networks": "network "}
_NAMES = {"stop_grace_period": "stop grace period", "healthcheck": "health check", "entrypoint": "entry point"}


def explain(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two entries of `docker compose config` for a service, a line for each difference.

    Values of the environment are shown: by policy no secret is ever among them.
    """
    return list(_differences(old, new))


def explain_build(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two `build` entries of a service; nothing when it can only be the source."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if key == "args":
            found += _pairs("build argument ", before or {}, after or {})
        elif before != after:
            found.append(f"build {key} {_turned(before, after)}")
    return found


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*old, *new} - _NO_CHANGE):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key == "image":
            yield f"image {before} → {after}"
        elif key in _KINDS:
            yield from _pairs(_KINDS[key], before or {}, after or {})
        elif key == "deploy":
            yield from _deploy(before or {}, after or {})
        elif isinstance(before or after, list):
            yield from _members(_NAMES.get(key, key), before or [], after or [])
        elif isinstance(before or after, Mapping):
            yield from _pairs(f"{_NAMES.get(key, key)} ", before or {}, after or {})
        else:
            yield f"{_NAMES.get(key, key)} {_turned(before, after)}"


def _pairs(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in new:
            yield f"{kind}{name} removed"
        elif name not in old:
            yield f"{kind}{name} added" + ("" if new[name] is None else f": {_shown(new[name])}")
        elif old[name] != new[name]:
            yield f"{kind}{name}: {_turned(old[name], new[name])}"


def _members(kind: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    removed = [_shown(each) for each in old if each not in new]
    added = [_shown(each) for each in new if each not in old]
    if not removed and not added:
        yield f"{kind}: another order"
    yield from (f"{kind}: {each} removed" for each in removed)
    yield from (f"{kind}: {each} added" for each in added)


def _deploy(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("limits", "reservations"):
        before = (old.get("resources") or {}).get(kind) or {}
        after = (new.get("resources") or {}).get(kind) or {}
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield f"{name} {kind[:-1]} {_amount(name, before.get(name))} → {_amount(name, after.get(name))}"
    for key in sorted({*old, *new} - {"resources", "replicas"}):
        if old.get(key) != new.get(key):
            yield f"deploy.{key} {_turned(old.get(key), new.get(key))}"


def _amount(name: str, value: Any) -> str:
    if value is None:
        return "none"
    return console.size(int(value)) if name == "memory" else str(value)


def _turned(old: Any, new: Any) -> str:
    """What a value was and what it is now, each from where they differ if that is too far in."""
    before, after = _text(old), _text(new)
    alike = len(os.path.commonprefix([before, after]))
    if alike > _VALUE_LENGTH // 2 and max(len(before), len(after)) > _VALUE_LENGTH:
        start = alike - _VALUE_LENGTH // 4
        before, after = f"…{before[start:]}", f"…{after[start:]}"
    return f"{_short(before)} → {_short(after)}"


def _shown(value: Any) -> str:
    """A value in one short line."""
    return _short(_text(value))


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_LENGTH else f"{text[: _VALUE_LENGTH - 1]}…"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping) and value.get("target"):
        return f"{value.get('source') or value.get('published') or ''} at {value['target']}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
