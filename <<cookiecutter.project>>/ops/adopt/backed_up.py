"""The lines of docker-compose.backup-volumes.yml: which volumes the service that takes backups mounts."""

from __future__ import annotations

import re

from ops.base.errors import USAGE, OpsError

FILE = "docker-compose.backup-volumes.yml"
SERVICE = "backup"

# The list of volumes of the service, up to its last entry.
_LIST = re.compile(
    rf"^(?P<head>(?P<indent> +){SERVICE}:[ \t]*(?:#.*)?\n(?:(?P=indent) +[^-\n].*\n|\s*\n)*?(?P=indent) +volumes:)"
    r"(?P<empty>[ \t]*\[\])?[ \t]*(?:#.*)?\n(?P<entries>(?: +(?:-|#).*\n)*)",
    re.MULTILINE,
)


def line(volume: str) -> str:
    """The entry of a volume, as Compose reads it."""
    return f"{volume}:/volumes/{volume}:ro"


def put(text: str, volume: str) -> str:
    """The text with a volume; unchanged when it is there. Raises OpsError (USAGE) when it is written in another way."""
    found = _find(text, f"Add this line under services: {SERVICE}: volumes: by hand: - {line(volume)}")
    if _entry(volume).search(found["entries"]):
        return text
    entries = found["entries"]
    indent = re.match(r" *", entries)[0] if entries else " " * (len(found["indent"]) * 3)  # type: ignore[index]
    return f"{text[: found.end('head')]}\n{entries}{indent}- {line(volume)}\n{text[found.end() :]}"


def remove(text: str, volume: str) -> str:
    """The text without a volume. Raises OpsError (USAGE) when it is written in another way."""
    if not re.search(rf"[-\s\"'\[]{re.escape(volume)}:", text):
        return text
    found = _find(text, f"Remove the line with {volume} by hand.")
    entries = _entry(volume).sub("", found["entries"])
    empty = "" if re.search(r"^ *-", entries, re.MULTILINE) else " []"
    return f"{text[: found.end('head')]}{empty}\n{entries}{text[found.end() :]}"


def _entry(volume: str) -> re.Pattern[str]:
    return re.compile(rf"^ *- *[\"']?{re.escape(volume)}:.*\n", re.MULTILINE)


def _find(text: str, remedy: str) -> re.Match[str]:
    text_ends = text if text.endswith("\n") else f"{text}\n"
    found = _LIST.search(text_ends)
    if not found:
        raise OpsError(f"{FILE} is written in a way that cannot be edited.", remedy, USAGE)
    return found
