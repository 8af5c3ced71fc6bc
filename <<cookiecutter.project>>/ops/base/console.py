"""What a person sees: lines, tables, questions. Colour and live output only on a terminal.

Rich costs 60 ms to import, so it is imported only by what draws a table; plain lines never pay for it.
"""

from __future__ import annotations

import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ops.base.errors import USAGE, OpsError

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
# Wide enough for any of our tables: output that is piped or logged must not be cut to a terminal of 80 columns.
_PIPED_WIDTH = 240
# Without a terminal: often enough that no job runner takes a build for dead, rarely enough for its log.
_SIGN_OF_LIFE_SECONDS = 20


class Output:
    """A text stream whose reader may go away (`| head`, a closed terminal) without stopping the work that writes to it.

    What is written after that is dropped. All else is the stream's own affair.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody reads."""
        with self._forgiven():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        with self._forgiven():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # What is left in the stream's buffer must not fail again when Python ends; and children inherit the place.
            with suppress(OSError, ValueError), _nowhere() as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


def outlive_readers() -> None:
    """From now on, let no closed standard output or error stop what a command is doing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that is not UTF-8 shows a question mark instead of a spinner.
            stream.reconfigure(errors="replace")
        if not isinstance(stream, Output):
            # Closed from the beginning (`>&-`), Python gives none.
            setattr(sys, name, Output(_nowhere() if stream is None else stream))


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def is_terminal(stream: TextIO | None = None) -> bool:
    """True when a person is looking: the stream (default: standard output) is a terminal that understands colour."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """The text in a style of _STYLES on a terminal; unchanged elsewhere and under NO_COLOR."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def say(text: str = "", style: str = "") -> None:
    """A line on standard output, at once."""
    print(paint(text, style) if style else text, flush=True)


def warn(text: str) -> None:
    """A warning on standard error: the command goes on."""
    print(f"{paint('warning:', 'yellow', sys.stderr)} {text}", file=sys.stderr, flush=True)


def fail(error: OpsError) -> None:
    """An error and its remedy on standard error."""
    print(f"{paint('error:', 'red', sys.stderr)} {error.message}", file=sys.stderr)
    if error.remedy:
        print(f"       {error.remedy}", file=sys.stderr, flush=True)


def confirm(question: str, assume_yes: bool = False, expect: str = "") -> bool:
    """Ask before something that cannot be undone.

    expect: what must be typed to agree (default: y or yes). Raises OpsError when there is no terminal.
    """
    if assume_yes:
        return True
    if not sys.stdin.isatty():
        raise OpsError(
            f"{question} This needs confirmation and there is no terminal.", "Run it again with --yes.", USAGE
        )
    prompt = f"{question} Type {expect} to continue: " if expect else f"{question} [y/N] "
    try:
        answer = input(prompt).strip()
    except EOFError:
        return False
    return answer == expect if expect else answer.lower() in {"y", "yes"}


@cache
def console() -> Console:
    """The Rich console on standard output."""
    from rich.console import Console

    # Without a colour system Rich writes no styles at all, bold neither.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(highlight=False, width=None if is_terminal() else _PIPED_WIDTH, color_system=colours)


def width() -> int:
    """Characters in a line of standard output."""
    return console().width


def plain(text: str) -> str:
    """Text for a cell of a table that may hold [brackets] of its own."""
    return text.replace("[", r"\[")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Any:
    """A Rich table. A cell is plain text, or text in a style written as "[green]healthy[/]"."""
    from rich.table import Table

    drawn = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows without as many of the `spare` columns, the first one first, as it takes to fit a width."""
    from rich.text import Text

    kept = [*range(len(columns))]

    def needed() -> int:
        cells = [[columns[place], *(Text.from_markup(row[place]).plain for row in rows)] for place in kept]
        return sum(max(map(len, column)) + 2 for column in cells)

    for name in spare:
        if needed() <= width:
            break
        kept.remove(columns.index(name))
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


def reader_is_gone() -> bool:
    """Whether nobody reads standard output any more (`| head`)."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return True


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table on standard output."""
    if is_terminal():
        console().print(table(columns, rows, title))
        return
    with console().capture() as captured:
        console().print(table(columns, rows, title))
    # Rich fills cells with blanks: nobody wants them in a file.
    for line in captured.get().splitlines():
        say(line.rstrip())


@contextmanager
def activity(title: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show that something long is at work: a spinner with its latest words on a terminal, else a line now and then.

    Gives the function to call with the latest words. quiet: show nothing, because a program reads the output.
    """
    if quiet or not is_terminal():
        if not quiet:
            say(title)
        yield ticker(quiet)
        return
    with console().status(title) as status:
        from rich.markup import escape

        def show(words: str) -> None:
            status.update(f"{escape(title)}\n  [dim]{escape(words[: console().width - 4])}[/]")

        yield show


def ticker(quiet: bool = False) -> Callable[[str], None]:
    """A function that says the latest words of a long work, but not more often than anybody wants to read."""
    began = time.monotonic()
    shown = began - _SIGN_OF_LIFE_SECONDS if is_terminal() else began

    def show(words: str) -> None:
        nonlocal shown
        now = time.monotonic()
        if not quiet and now - shown >= _SIGN_OF_LIFE_SECONDS:
            shown = now
            say(f"  {duration(now - began)}{f': {words}' if words else ''}")

    return show


def size(count: float) -> str:
    """Bytes for people: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def amount(count: int, noun: str) -> str:
    """A number of things whose plural ends in s: 1 -> "1 file", 2 -> "2 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Seconds for people: 0.42 -> "0.4 s", 75 -> "1 min 15 s", 90000 -> "1 d 1 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
