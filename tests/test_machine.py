"""The way from a bare machine to nox, and the quickstart's decisions."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import machine, quickstart


class Refused(Exception):
    """Stands for the bootstrap program's own error."""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bootstrap program that remembers what it was asked to do, and an exec that returns."""
    done: list[str] = []
    fake = SimpleNamespace(
        BootstrapError=Refused,
        done=done,
        ask=lambda yes: done.append(f"yes={yes}") or "consent",
        ensure_venv=lambda folder, requirements, consent: Path("/venv/bin/python"),
        ensure_engine=lambda consent: done.append("engine"),
        ensure_system_packages=lambda names, consent: done.extend(names),
    )
    monkeypatch.setattr(machine, "bootstrap", lambda: fake)
    monkeypatch.setattr(machine.shutil, "which", lambda command: None)
    monkeypatch.setattr(machine, "find_library", lambda name: None)
    monkeypatch.setattr(os, "execv", lambda path, argv: done.append(" ".join(argv)))
    return fake


NOX = f"/venv/bin/nox --noxfile {machine.ROOT / 'noxfile.py'}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["yes=False", "git", "engine", "chromium", "libatomic1", NOX]),
        (["--yes", "tests"], ["yes=True", "git", "engine", "chromium", "libatomic1", NOX]),
        (["--yes", "quickstart"], ["yes=True", "git", "engine", f"{NOX} --sessions quickstart"]),
        (["lint", "bake"], ["yes=False", "git", f"{NOX} --sessions lint bake"]),
        (
            ["quickstart", "--", "--output", "x"],
            ["yes=False", "git", "engine", f"{NOX} --sessions quickstart -- --output x"],
        ),
    ],
)
def test_only_what_the_sessions_need(program: Any, arguments: list[str], expected: list[str]) -> None:
    machine.main(arguments)
    assert program.done == expected


def test_a_machine_that_cannot_be_prepared(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(consent: object) -> None:
        raise Refused("No Docker engine answers here.")

    program.ensure_engine = refuse
    assert machine.main(["tests"]) == 1
    assert capsys.readouterr().err == "noxfile: No Docker engine answers here.\n"


def test_without_a_browser_the_rest_is_tested(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(names: list[str], consent: object) -> None:
        if "chromium" in names:
            raise Refused("chromium missing: install it.")

    program.ensure_system_packages = refuse
    machine.main(["stack"])
    assert program.done == ["yes=False", "engine", f"{NOX} --sessions stack"]
    assert "will be skipped: chromium missing" in capsys.readouterr().err


def test_the_real_program_has_what_is_called() -> None:
    program = machine.bootstrap()
    for name in ("ask", "ensure_engine", "ensure_system_packages", "ensure_venv"):
        assert hasattr(program, name)
    assert issubclass(program.BootstrapError, Exception)


def test_an_old_python_is_told_so() -> None:
    """Python 3.6 can read the program, and gets a sentence."""
    program = machine.ROOT / "noxfile.py"
    tree = ast.parse(program.read_text(encoding="utf-8"), feature_version=(3, 6))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    pretend = (
        "import runpy, sys; sys.version_info = (3, 6, 15, 'final', 0); "
        f"runpy.run_path({str(program)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"noxfile: Python 3.6 is too old, 3.11 or newer is needed: run python3.11 {program}\n"


def test_images_are_those_that_somebody_else_makes() -> None:
    services = {
        "nginx": {"image": "nginx:1"},
        "web": {"image": "acme/web:current", "build": {"args": {"PYTHON_IMAGE": "python:3"}}},
        "grafana": {"image": "grafana:1", "profiles": ["dashboards-true-true"]},
        "watcher": {"image": "nginx:1", "profiles": ["monitoring-true"]},
    }
    assert quickstart.images(services) == {"nginx:1": "", "python:3": "", "grafana:1": "dashboards-true-true"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    env_file = tmp_path / quickstart.ENV_FILE
    env_file.parent.mkdir(parents=True)
    env_file.write_text("A=1\nLOGGING_ENABLED=true\nDASHBOARDS_ENABLED=true\nB=2\n", encoding="utf-8")
    return tmp_path


def provide(monkeypatch: pytest.MonkeyPatch, folder: Path, unavailable: str) -> None:
    services = {
        "nginx": {"image": "nginx:1"},
        "grafana": {"image": "grafana:1", "profiles": ["dashboards-true-true"]},
    }
    monkeypatch.setattr(quickstart, "model", lambda folder: {"services": services})
    result = SimpleNamespace(unavailable={unavailable: "no registry answers"})
    monkeypatch.setattr(quickstart, "provide", lambda wanted: result)
    quickstart.provide_images(folder)


def test_a_tier_without_images_is_switched_off(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    provide(monkeypatch, folder, "grafana:1")
    text = (folder / quickstart.ENV_FILE).read_text(encoding="utf-8")
    assert text == "A=1\nLOGGING_ENABLED=true\nDASHBOARDS_ENABLED=false\nB=2\n"


def test_a_stack_without_its_images_is_not_started(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    with pytest.raises(SystemExit, match="nginx:1 cannot be had"):
        provide(monkeypatch, folder, "nginx:1")


def test_a_project_that_is_there_is_not_baked_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart.bake(folder, {})
    assert "stays as it is" in capsys.readouterr().out
