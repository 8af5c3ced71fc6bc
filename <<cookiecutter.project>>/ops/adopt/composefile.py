"""Entries put into a Compose file, and taken out of it, as text: comments, order and blank lines of its owner stay.

It knows files as people write them: `services:` at the beginning of a line, its entries indented, each with a line for
its name. Whoever edits compares what Compose makes of the text before and after, so anything else is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ops.base.errors import USAGE, OpsError

# A key at the beginning of a line begins a section; so does `---`.
_TOP = re.compile(r"[^\s#]")
_ENTRY = re.compile(r"""(?P<indent> +)(?P<quote>["']?)(?P<name>[A-Za-z0-9._-]+)(?P=quote)\s*:(?:\s.*)?""")


def names(text: str, section: str) -> list[str]:
    """The names of the entries of a section; none when the file has no such section."""
    lines = text.splitlines()
    found = _section(lines, section)
    return [name for name, _ in _entries(lines, *found)] if found else []


def insert(text: str, section: str, entry: Sequence[str]) -> str:
    """The text with an entry at the end of a section, which is added when it is not there.

    entry: its lines, indented by two spaces and more. Raises OpsError (USAGE) for a section that cannot be added to.
    """
    lines = text.splitlines()
    found = _section(lines, section)
    if not found:
        return "\n".join([*_trimmed(lines), "", f"{section}:", *entry, ""])
    start, end = found
    rest = lines[start].partition(":")[2].partition(" #")[0].strip()
    if rest not in {"", "{}"}:
        raise OpsError(
            f"docker-compose.services.yml:{start + 1}: {section} is written in one line, and cannot be added to.",
            "Write its entries in lines of their own.",
            USAGE,
        )
    if rest:
        lines[start] = f"{section}:"
    indents = {len(line) - len(line.lstrip()) for _, (line, *_) in ((n, lines[i:]) for n, i in _entries(lines, *found))}
    shift = " " * (min(indents, default=2) - 2)
    blank = [""] if section == "services" and indents else []
    added = [f"{shift}{line}" if line else "" for line in entry]
    after = lines[end:]
    return "\n".join([*_trimmed(lines[:end]), *blank, *added, *(["", *_headed(after)] if after else []), ""])


def remove(text: str, section: str, name: str) -> str:
    """The text without an entry, and without the comment right above it. A section that is empty then goes too."""
    lines = text.splitlines()
    found = _section(lines, section)
    entries = _entries(lines, *found) if found else []
    at = next(index for index, (each, _) in enumerate(entries) if each == name)
    assert found
    first = entries[at][1]
    indent = len(lines[first]) - len(lines[first].lstrip())
    last = entries[at + 1][1] if at + 1 < len(entries) else found[1]
    # What stands right above the next entry is about that one.
    while last > first + 1 and _is_above(lines[last - 1], indent):
        last -= 1
    while first > found[0] + 1 and _is_comment(lines[first - 1], indent):
        first -= 1
    if len(entries) == 1:
        before, after = _trimmed(lines[: found[0]]), _headed(lines[last:])
        return "\n".join([*before, *([""] if before and after else []), *after, *([""] if before or after else [])])
    before, after = lines[:first], lines[last:]
    if at + 1 == len(entries):
        before, after = _trimmed(before), (["", *_headed(after)] if _headed(after) else [])
    else:
        after = _headed(after)
    return "\n".join([*before, *after, ""])


def _section(lines: Sequence[str], section: str) -> tuple[int, int] | None:
    """Where a section begins, and where the next one does, with the comments above that."""
    heads = [index for index, line in enumerate(lines) if _TOP.match(line)]
    for position, start in enumerate(heads):
        if re.fullmatch(rf"{section}\s*:(\s.*)?", lines[start]):
            end = heads[position + 1] if position + 1 < len(heads) else len(lines)
            while (
                end > start + 1 and end < len(lines) and (lines[end - 1].startswith("#") or not lines[end - 1].strip())
            ):
                end -= 1
            return start, end
    return None


def _entries(lines: Sequence[str], start: int, end: int) -> list[tuple[str, int]]:
    """Names of the entries of a section with their lines: what is indented as the first one is."""
    found = [(match, index) for index in range(start + 1, end) if (match := _ENTRY.fullmatch(lines[index]))]
    indent = found[0][0]["indent"] if found else ""
    return [(match["name"], index) for match, index in found if match["indent"] == indent]


def _is_comment(line: str, indent: int) -> bool:
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) == indent


def _is_above(line: str, indent: int) -> bool:
    return not line.strip() or _is_comment(line, indent)


def _trimmed(lines: Sequence[str]) -> list[str]:
    """Without blank lines at the end."""
    return list(_without_blanks(reversed(lines)))[::-1]


def _headed(lines: Sequence[str]) -> list[str]:
    """Without blank lines at the beginning."""
    return list(_without_blanks(iter(lines)))


def _without_blanks(lines: Iterator[str]) -> Iterator[str]:
    begun = False
    for line in lines:
        begun = begun or bool(line.strip())
        if begun:
            yield line
