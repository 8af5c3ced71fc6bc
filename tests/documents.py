"""The commands that a document tells people to type: every line of its blocks of shell."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """The lines in the order of the document, without comments."""
    lines = "".join(_BLOCK.findall(document.read_text(encoding="utf-8"))).splitlines()
    return [text for line in lines if (text := line.partition(" #")[0].strip())]
