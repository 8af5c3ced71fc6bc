"""Positions of the write-ahead log, and the files that hold it.

A file is named by timeline and segment: 00000002000000010000003F. What the server still writes is NAME.partial here. A
file NAME.history tells where a timeline branched off its parents.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 16 << 20
PARTIAL = ".partial"
_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
# Of the first page of a segment: 24 bytes that every page begins with, then the system.
_LONG_HEADER = struct.Struct("=24xQ")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, order=True)
class Segment:
    """A file of the WAL. number: since the beginning of all WAL."""

    number: int
    timeline: int

    @property
    def name(self) -> str:
        """Its file's name, when it is complete."""
        per_file = 0x1_0000_0000 // SEGMENT_BYTES
        return f"{self.timeline:08X}{self.number // per_file:08X}{self.number % per_file:08X}"


@dataclass(frozen=True)
class Branch:
    """Where a timeline ended and the next one of a history began. end: position."""

    timeline: int
    end: int


def segment_of(name: str) -> Segment | None:
    """The segment that a file holds, complete or not; None for any other file."""
    match = _SEGMENT.fullmatch(name)
    if not match:
        return None
    per_file = 0x1_0000_0000 // SEGMENT_BYTES
    return Segment(int(match[2], 16) * per_file + int(match[3], 16), int(match[1], 16))


def system_of(file: Path) -> int:
    """The database system that wrote a segment; 0 when it does not say, for nothing was written into it yet."""
    with file.open("rb") as opened:
        header = opened.read(_LONG_HEADER.size)
    return int(_LONG_HEADER.unpack(header)[0]) if len(header) == _LONG_HEADER.size else 0


def timeline_of_history(name: str) -> int:
    """The timeline whose history a file is; 0 for any other file."""
    match = _HISTORY.fullmatch(name)
    return int(match[1], 16) if match else 0


def position(text: str) -> int:
    """A position as PostgreSQL writes it (16/B374D848). Raises ValueError."""
    high, _, low = text.strip().partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def shown(lsn: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def number_of(lsn: int) -> int:
    """The number of the segment that holds a position."""
    return lsn // SEGMENT_BYTES


def branches(history: str) -> list[Branch]:
    """The content of a history file: where its ancestors ended, the oldest first."""
    found = []
    for line in history.splitlines():
        fields = line.split("#")[0].split()
        if len(fields) >= 2:
            found.append(Branch(int(fields[0]), position(fields[1])))
    return found


def diverged(names: Iterable[str], ancestors: Iterable[Branch]) -> list[str]:
    """Files that hold what an old primary wrote after the others had left it: segments in which, or after which, a
    timeline ended. One that ended with a segment cannot be continued from there, so that segment is among them."""
    ends = {each.timeline: number_of(each.end - 1) for each in ancestors}
    return sorted(
        name for name in names if (found := segment_of(name)) and found.number >= ends.get(found.timeline, 1 << 62)
    )


def missing(names: Iterable[str], start: int, timeline: int, histories: Mapping[int, str]) -> tuple[str, int]:
    """What a recovery that begins at a position of a timeline would not find, and how far it would get.

    Returns the name of the first segment that is missing although later ones are there ("" when nothing is), and the
    number of the last segment before it. histories: contents of history files by timeline.
    """
    line = _line(timeline, histories)
    numbers = {found.number for name in names if (found := segment_of(name)) and found.timeline in line}
    wanted = number_of(start)
    last = max(numbers, default=-1)
    number = wanted
    while number in numbers:
        number += 1
    if number <= max(last, wanted):
        return Segment(number, _timeline_at(number, timeline, histories)).name, number - 1
    return "", number - 1


def newest(timeline: int, histories: Mapping[int, str]) -> int:
    """The newest timeline that descends from another one."""
    return max((each for each, text in histories.items() if _descends(text, timeline)), default=timeline)


def _descends(history: str, timeline: int) -> bool:
    return any(each.timeline == timeline for each in branches(history))


def _line(timeline: int, histories: Mapping[int, str]) -> set[int]:
    """The timelines whose files a recovery from one to its newest descendant reads."""
    end = newest(timeline, histories)
    return {end, *(each.timeline for each in branches(histories.get(end, "")) if each.timeline >= timeline)}


def _timeline_at(number: int, timeline: int, histories: Mapping[int, str]) -> int:
    """The timeline on which a segment would be looked for."""
    end = newest(timeline, histories)
    for each in branches(histories.get(end, "")):
        if each.timeline >= timeline and number < number_of(each.end):
            return each.timeline
    return end
