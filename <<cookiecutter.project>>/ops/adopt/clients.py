"""The lines of docker-compose.postgres-clients.yml: which services use a PostgreSQL outside of the stack."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ops.adopt import composefile
from ops.stack import labels

FILE = labels.CLIENTS_FILE
_ANCHOR = "&client"
_BEGIN = re.compile(r"^services:[ \t]*(\{\})?[ \t]*(#.*)?\n", re.MULTILINE)


def put(text: str, names: Iterable[str]) -> str:
    """The text with some services; unchanged where they are there, or the file is written in another way, which a
    deploy notices."""
    missing = [each for each in names if each not in composefile.names(text, "services")]
    begin = _BEGIN.search(text)
    if not (missing and begin and _ANCHOR in text):
        return text
    lines = "".join(f"  {each}: *client\n" for each in missing)
    return f"{text[: begin.start()]}services:\n{lines}{text[begin.end() :]}"


def remove(text: str, name: str) -> str:
    """The text without a service."""
    if name not in composefile.names(text, "services"):
        return text
    found = composefile.remove(text, "services", name)
    # The section goes with its last entry, and Compose wants one.
    return found if composefile.names(found, "services") else f"{found.rstrip()}\n\nservices: {{}}\n"
