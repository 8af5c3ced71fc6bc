"""Fixtures of the real-engine rung. How to add a module to it: tests/README.md."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import times
from tests.stories import pytest_runtest_makereport, pytest_runtest_setup

from .project import RUN, Project, remove_stacks_of
from .shared import Shared

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]


@pytest.fixture(scope="session")
def engine() -> None:
    """A reachable Docker engine, or the reason why there is none."""
    found = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(f"no Docker engine answers: {found.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A fresh project of this module's own, nothing deployed; nothing of it survives the module."""
    with Project.temporary(tmp_path_factory.mktemp("bake")) as project:
        yield project


@pytest.fixture(scope="session")
def _dev_stack(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with Project.temporary(tmp_path_factory.mktemp("bake")) as project:
        project.invoke("deploy")
        yield Shared(project)


@pytest.fixture(scope="module")
def dev_stack(_dev_stack: Shared) -> Project:
    """The stack of dev that modules share: deployed and healthy, its files as they were baked.

    A module may change what it likes and need not put it back: what it changed is undone before the next one begins.
    """
    return _dev_stack.ready()


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser, or the reason why there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where the pages a test saw are kept as pictures."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ── what runs, in which order, and beside what ────────────────────────────────────────────────────────────────────────


def pytest_configure() -> None:
    # Processes of pytest-xdist inherit it.
    os.environ.setdefault(RUN, str(os.getpid()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="tests marked as faults, with the stories they belong to")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the faults to a run of their own, keep together what runs on one stack, and begin with what takes longest.

    A fault is a chapter of its module's story: with `--faults` the whole story is told, without it those are left out.
    """
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    others = [item for item in items if item not in mine]
    if config.getoption("--faults"):
        with_faults = {item.path for item in mine if "fault" in item.keywords}
        left_out = [*others, *(item for item in mine if item.path not in with_faults)]
    else:
        left_out = [item for item in mine if "fault" in item.keywords]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    groups: dict[str, list[pytest.Item]] = {}
    for item in mine:
        if item not in left_out:
            groups.setdefault(_stack_of(item.path), []).append(item)
    budgets = times.budgets()

    def budget(group: list[pytest.Item]) -> float:
        modules = {".".join(item.path.relative_to(times.ROOT).with_suffix("").parts) for item in group}
        return sum(times.budget(module, budgets) for module in modules)

    ordered = sorted(groups.values(), key=budget, reverse=True)
    items[:] = [*(item for item in others if item not in left_out), *(item for group in ordered for item in group)]


def _stack_of(module: Path) -> str:
    """What a module runs on: the stack that is shared, or one of its own."""
    return "dev_stack" if "dev_stack" in module.read_text(encoding="utf-8") else module.stem


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With pytest-xdist: tests of one stack go to one process. (Its own `loadgroup` does not work with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByStack(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _stack_of(config.rootpath / nodeid.partition("::")[0])

    return ByStack(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    # After Ctrl-C, processes of pytest-xdist end without tearing anything down.
    if not hasattr(config, "workerinput") and shutil.which("docker"):
        remove_stacks_of(os.environ[RUN])
