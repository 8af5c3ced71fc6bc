"""Durations against budgets, from the reports that pytest writes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests import times
from tests.times import Took

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.stack.test_plan" name="test_a[x]" time="61.5"/>
<testcase classname="tests.stack.test_plan" name="test_b" time="2.5"><failure message="no"/></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stack.xml").write_text(REPORT)
    monkeypatch.setattr(times, "FOLDER", tmp_path)
    monkeypatch.setattr(times, "BUDGETS", tmp_path / "budgets.toml")
    return tmp_path


@pytest.mark.parametrize(
    ("budget", "code", "said"),
    [
        (64, 0, "No module is over its budget."),
        (63, 0, "64.0 s of 63 s  tests.stack.test_plan  OVER ITS BUDGET"),
        (31, 1, "64.0 s of 31 s  tests.stack.test_plan  FAR OVER ITS BUDGET"),
    ],
)
def test_verdict(folder: Path, capsys: pytest.CaptureFixture[str], budget: int, code: int, said: str) -> None:
    (folder / "budgets.toml").write_text(f'[seconds]\n"tests.stack" = {budget}\n')
    assert times.main("stack") == code
    shown = capsys.readouterr().out
    assert said in shown and "61.5 s  tests.stack.test_plan::test_a[x]" in shown


def test_a_report_that_was_not_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "budgets.toml").write_text('[seconds]\n"tests" = 100\n')
    assert times.main("stack", "unit") == 0
    assert "No times of: unit.xml" in capsys.readouterr().out


def test_the_nearest_budget_holds_and_there_must_be_one() -> None:
    budgets = {"tests": 5, "tests.stack": 20, "tests.stack.test_plan": 30}
    found = times.spent([Took(f"tests{name}", "", 1) for name in (".stack.test_plan", ".stack.test_x", ".y")], budgets)
    assert {each.module: each.budget for each in found} == {
        "tests.stack.test_plan": 30,
        "tests.stack.test_x": 20,
        "tests.y": 5,
    }
    with pytest.raises(KeyError, match="ops.tests.test_x"):
        times.spent([Took("ops.tests.test_x", "", 1)], budgets)


def test_budgets_name_modules_that_are_there() -> None:
    for name in tomllib.loads(times.BUDGETS.read_text())["seconds"]:
        path = times.ROOT.joinpath(*name.split("."))
        services_or_commands = times.ROOT.joinpath("<<cookiecutter.project>>", *name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file() or services_or_commands.is_dir(), name
