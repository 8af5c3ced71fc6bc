"""The source of a new service, from scripts/skeletons: working code, in which only the name is put in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ops.adopt.entry import GO, MADE, NODE, PYTHON, Wanted

FOLDER = Path("scripts/skeletons")
# Where the services that are made can keep files; services/Dockerfile makes it too.
DATA = "/data"


def files(wanted: Wanted, project: Path) -> dict[str, str]:
    """The files of a new service, by their path in its folder; none where the source is somebody else's."""
    if wanted.kind not in MADE:
        return {}
    found: dict[str, str] = {}
    for name in _layers(wanted):
        folder = project / FOLDER / name
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target = _renamed(path.relative_to(folder).as_posix(), wanted)
                found[target] = _renamed(path.read_text(encoding="utf-8"), wanted)
    if wanted.kind in (NODE, GO) and wanted.volume:
        found["Dockerfile"] = found["Dockerfile"].replace(DATA, wanted.volume)
    return found


def definitions(wanted: Wanted) -> str:
    """What a service owns in RabbitMQ: an exchange and a queue of its name, and the right to use both."""
    name = wanted.module
    lasting: dict[str, Any] = {"name": name, "durable": True, "auto_delete": False}
    owned = {
        "permissions": [{"configure": "^$", "write": f"^{name}$", "read": f"^{name}$"}],
        "exchanges": [{**lasting, "type": "topic", "internal": False, "arguments": {}}],
        # a quorum queue keeps a copy on every node of a cluster
        "queues": [{**lasting, "arguments": {"x-queue-type": "quorum"}}],
        "bindings": [
            {"source": name, "destination": name, "destination_type": "queue", "routing_key": "#", "arguments": {}}
        ],
    }
    return f"{json.dumps(owned, indent=2)}\n"


def _layers(wanted: Wanted) -> list[str]:
    if wanted.ends:
        return [f"{wanted.kind}-job"]
    return [wanted.kind, *([f"{PYTHON}-database"] if wanted.kind == PYTHON and wanted.stored else [])]


def _renamed(text: str, wanted: Wanted) -> str:
    title = "".join(part.capitalize() for part in wanted.name.split("-"))
    for old, new in (("new-service", wanted.name), ("newservice", wanted.module), ("NewService", title)):
        text = text.replace(old, new)
    return text
