"""Durations against budgets, from the reports that pytest writes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests import faults, times
from tests.times import Took

REPORT = """<?xml version="1.0"?><testsuites><testsuite time="70.5">
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
    ("budget", "said"),
    [
        (64, "No module is over its budget."),
        (63, "64.0 s of 63 s  tests.stack.test_plan  OVER ITS BUDGET"),
        (31, "64.0 s of 31 s  tests.stack.test_plan  FAR OVER ITS BUDGET"),
    ],
)
def test_verdict(folder: Path, capsys: pytest.CaptureFixture[str], budget: int, said: str) -> None:
    (folder / "budgets.toml").write_text(f'[seconds]\n"tests.stack" = {budget}\n')
    assert times.main("stack") == 0
    shown = capsys.readouterr().out
    assert said in shown and "70.5 s  stack" in shown and "61.5 s  tests.stack.test_plan::test_a[x]" in shown


def test_a_report_that_was_not_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "budgets.toml").write_text('[seconds]\n"tests" = 100\n')
    assert times.main("stack", "unit") == 0
    assert "No times of: unit.xml" in capsys.readouterr().out


def test_the_nearest_budget_holds() -> None:
    budgets = {"": 3, "tests": 5, "tests.stack": 20, "tests.stack.test_plan": 30}
    names = ("tests.stack.test_plan", "tests.stack.test_x", "tests.test_y", "ops.tests.test_z")
    assert [times.budget(name, budgets) for name in names] == [30, 20, 5, 3]
    found = times.spent([Took("tests.test_y", "a", 1), Took("tests.test_y", "b", 1), Took("api.z", "c", 9)], budgets)
    assert found == [times.Spent("api.z", 9, 3), times.Spent("tests.test_y", 2, 5)]


def test_budgets_name_modules_that_are_there() -> None:
    for name in filter(None, times.budgets()):
        path = times.ROOT.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_table_of_faults_has_every_test_with_its_result(folder: Path) -> None:
    skipped = '<testcase classname="x" name="c" time="0"><skipped/></testcase></testsuite>'
    (folder / "faults.xml").write_text(REPORT.replace("</testsuite>", skipped))
    lines = faults.table(times.read(folder / "faults.xml"), date(2026, 11, 26)).splitlines()
    assert "`nox -s faults`, 2026-11-26: 1 passed, 1 failed, 1 skipped." in lines
    assert lines[-3:] == [
        "| test_plan | test_a[x] | passed | 62 |",
        "| test_plan | test_b | failed | 2 |",
        "| x | c | skipped | 0 |",
    ]
