"""What people see: plain where a program reads, questions only where somebody can answer."""

from __future__ import annotations

import sys

import pytest

from ops.base import console
from ops.base.errors import USAGE, OpsError


class Terminal:
    """A standard input that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("expect", "answer", "agreed"),
    [
        ("", "y", True),
        ("", "YES ", True),
        ("", "", False),
        ("", "no", False),
        ("prod", "prod", True),
        ("prod", "y", False),
        ("prod", "Prod", False),
    ],
)
def test_questions(monkeypatch: pytest.MonkeyPatch, expect: str, answer: str, agreed: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert console.confirm("Delete?", expect=expect) is agreed


def test_end_of_input_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", ended)
    assert not console.confirm("Delete?")


def test_without_a_terminal_it_asks_nobody() -> None:
    assert console.confirm("Delete?", assume_yes=True)
    with pytest.raises(OpsError, match="Delete\\? This needs confirmation and there is no terminal") as caught:
        console.confirm("Delete?")
    assert caught.value.code == USAGE
    assert "--yes" in caught.value.remedy


def test_one_is_singular() -> None:
    assert [console.amount(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_errors_go_to_standard_error_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail(OpsError("It is broken.", "Fix it."))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: It is broken.\n       Fix it.\n"


def test_tables_are_not_cut_or_coloured_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.console.cache_clear()
    console.print_table(("A", "B", "C"), [("x" * 100, "[green]ok[/]", console.plain("[emerg] [/] no"))])
    console.console.cache_clear()
    assert capsys.readouterr().out.splitlines()[1].split() == ["x" * 100, "ok", "[emerg]", "[/]", "no"]


def test_a_long_work_speaks_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.activity("building") as tick:
        for seconds in (1.0, 20.0, 21.0, 40.0):
            now = seconds
            tick("step")
    assert capsys.readouterr().out == "building\n  20 s: step\n  40 s: step\n"
    with console.activity("building", quiet=True) as tick:
        now = 100.0
        tick("step")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (3 * 1024**4, "3.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert console.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (42, "42 s"), (75, "1 min 15 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text
