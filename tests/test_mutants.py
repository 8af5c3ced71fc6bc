"""Which changes the mutation program makes, and whether it can tell tests that notice from tests that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import BOUND, CONSTANT, KINDS, OPERATOR, STATEMENT, Judge, Module, Verdict

SOURCE = '''"""A module."""

LIMIT = 30


def full(rows: list[int], wanted: str = "all") -> bool:
    """Whether there are enough."""
    if not rows:
        raise ValueError(f"no rows of {wanted!r}")
    rows.append(1)
    return len(rows) >= 3 and wanted != "none"
'''
GOOD = """\
import pytest
from ops.part.thing import full

def test_full():
    rows = [1, 2]
    assert full(rows) and rows == [1, 2, 1]
    assert not full([1]) and not full([1, 2], "none") and full([1, 2, 3])
    with pytest.raises(ValueError, match="no rows of 'all'"):
        full([])
"""
BLIND = "import ops.part.thing\n\ndef test_nothing():\n    ops.part.thing.full([1, 2])\n"


def changes(source: str) -> set[tuple[str, str]]:
    """(kind, what the changed line is now) of everything that can be changed."""
    return {
        (each.kind, each.source.splitlines()[each.line - 1].strip()) for each in mutants.mutants(source, count=1000)
    }


def test_each_kind_of_change() -> None:
    assert changes(SOURCE) == {
        (CONSTANT, "def full(rows: list[int], wanted: str = 'allx') -> bool:"),
        (OPERATOR, "if (rows):"),
        (STATEMENT, "if False:"),
        (STATEMENT, "pass"),
        (BOUND, "rows.append(2)"),
        (OPERATOR, "return (len(rows) >= 3 or wanted != 'none')"),
        (BOUND, 'return (len(rows) > 3) and wanted != "none"'),
        (BOUND, 'return len(rows) >= 4 and wanted != "none"'),
        (OPERATOR, "return len(rows) >= 3 and (wanted == 'none')"),
        (CONSTANT, "return len(rows) >= 3 and wanted != 'nonex'"),
        (STATEMENT, "return None"),
    }


def test_what_people_read_and_what_never_runs_is_left_alone() -> None:
    assert changes('from console import say\nSECONDS = 5.0\nx: "int"\n"""text"""\nsay("done")\n') == set()


def test_the_same_source_gives_the_same_and_every_kind_has_its_share() -> None:
    chosen = mutants.mutants(SOURCE, 8)
    assert chosen == mutants.mutants(SOURCE, 8)
    assert sorted(each.kind for each in chosen) == sorted([*KINDS, *KINDS])
    # An edit elsewhere does not choose others.
    moved = mutants.mutants(SOURCE.replace("LIMIT = 30\n", "LIMIT = 30\nOTHER = 31\n"), 8)
    assert [each.rank for each in moved] == [each.rank for each in chosen]


def test_every_change_can_be_compiled() -> None:
    """Of a real module, the program itself."""
    for each in mutants.mutants(Path(mutants.__file__).read_text(encoding="utf-8"), 1000):
        compile(each.source, "mutant", "exec")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one module, with tests that notice everything."""
    for path, text in {"ops/part/thing.py": SOURCE, "ops/tests/test_thing.py": GOOD}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    monkeypatch.setattr(mutants.template, "FOLDER", tmp_path)
    return tmp_path


def verdicts(project: Path) -> list[Verdict]:
    (module,) = Module.find("thing", project)
    return mutants.judge(module, 8, [Judge(project)])


def test_tests_that_notice_kill_every_mutant(project: Path) -> None:
    assert all(each.killed for each in verdicts(project))
    assert (project / "ops/part/thing.py").read_text() == SOURCE


def test_tests_that_notice_nothing_kill_only_what_cannot_run(project: Path) -> None:
    (project / "ops/tests/test_thing.py").write_text(BLIND)
    survivors = [each.mutant for each in verdicts(project) if not each.killed]
    assert len(survivors) >= 6
    shown = mutants.difference(*Module.find("part.thing", project), survivors[0])
    assert shown.splitlines()[0].startswith("@@ -") and len(shown.splitlines()) == 3


def test_tests_that_fail_without_a_mutant_prove_nothing(project: Path) -> None:
    (project / "ops/tests/test_thing.py").write_text("from ops.part import thing\n\n\ndef test():\n    assert False\n")
    with pytest.raises(SystemExit, match="its tests fail as it is"):
        verdicts(project)


def test_a_module_is_found_by_its_name_and_needs_tests(project: Path) -> None:
    assert Module.find("thing", project) == Module.find("part.thing", project)
    (project / "ops/part/__init__.py").write_text('"""A package."""\n')
    assert Module.find("part", project) == Module.find("thing", project)
    for name in ("hing", "other"):
        with pytest.raises(SystemExit, match="is not one module of ops/; there are part, part.thing"):
            Module.find(name, project)
    (project / "ops/tests/test_thing.py").rename(project / "ops/tests/test_part_thing.py")
    assert [each.tests for each in Module.find("thing", project)] == [(Path("ops/tests/test_part_thing.py"),)]
    # Of a module of the same name elsewhere
    other = project / "ops/tests/other/test_thing.py"
    other.parent.mkdir()
    (project / "ops/tests/test_part_thing.py").unlink()
    other.write_text("from ops.other import thing\n")
    with pytest.raises(SystemExit, match="no unit tests of its own"):
        Module.find("thing", project)
    other.write_text("from ops.part import thing\n")
    assert [each.tests for each in Module.find("thing", project)] == [(Path("ops/tests/other/test_thing.py"),)]


def test_the_table_keeps_the_rows_of_other_modules(tmp_path: Path) -> None:
    table = tmp_path / "MUTANTS.md"
    mutants.record(["| b | 1 of 12 | |", "| a | 2 of 12 | |"], table)
    mutants.record(["| b | 12 of 12 | |"], table)
    assert table.read_text().splitlines()[-2:] == ["| a | 2 of 12 | |", "| b | 12 of 12 | |"]
