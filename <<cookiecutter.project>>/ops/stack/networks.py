"""Networks that are declared otherwise than they exist: what Compose would do about them, nobody wants.

It replaces a changed network whenever it is asked for one of its containers: it stops those, also when only new ones
were to be made beside them, and then fails because of all the others. So whoever calls it looks here first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.stack.model import Stack

_LABEL = "com.docker.compose."
# What Go's JSON escapes, and Python's does not.
_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def refuse(env: Environment, declared: Stack, document: Path | None = None) -> None:
    """Raise OpsError (REFUSED) when a network would have to be replaced. document: what `declared` was read from, when
    it is not the Compose files."""
    if names := changed(env, declared, document):
        raise OpsError(
            f"{env.name} declares {', '.join(names)} otherwise than {'it exists' if len(names) == 1 else 'they exist'},"
            " and a network cannot change under those who use it. Nothing was touched.",
            f"Undo that change, or make it at a quiet time: invoke down --env {env.name}, which keeps all data, then"
            " deploy.",
            REFUSED,
        )


def changed(env: Environment, declared: Stack, document: Path | None = None) -> list[str]:
    """Networks that Compose would replace, as declared ("network backend")."""
    label = f"label={_LABEL}project={env.project}"
    ids = engine.docker("network", "ls", "--quiet", "--no-trunc", "--filter", label).stdout.split()
    suspects = differing(declared.document.get("networks") or {}, engine.inspect(ids, "network"))
    if not suspects:
        return []
    # The hash is Compose's own affair and may be made otherwise one day: let it say what it would do. While an image is
    # still to be had it cannot.
    options = ("--dry-run", "--no-recreate", "--no-build", "--pull", "never")
    said = engine.compose(env, "create", *options, document=document, check=False)
    removed = set(re.findall(r"Network (\S+) +Remov", said.stderr)) if said.ok else set(suspects.values())
    return [f"network {key}" for key, name in suspects.items() if name in removed]


def differing(declared: Mapping[str, Mapping[str, Any]], existing: list[dict[str, Any]]) -> dict[str, str]:
    """Names on the engine, by declared name, of networks whose configuration has another hash than at their making.

    existing: from `docker network inspect`. One without a hash was not made by a Compose that replaces networks.
    """
    made = {each["Name"]: (each.get("Labels") or {}).get(f"{_LABEL}config-hash") for each in existing}
    return {
        key: network["name"]
        for key, network in declared.items()
        if (noted := made.get(network["name"])) and noted != digest(network)
    }


def digest(network: Mapping[str, Any]) -> str:
    """Compose's hash of a network: of its JSON, with keys in the order in which `docker compose config` has them."""
    text = json.dumps(network, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPED)
    return hashlib.sha256(text.encode()).hexdigest()
