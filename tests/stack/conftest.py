"""Fixtures of the real-engine rung."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project


@pytest.fixture(scope="session")
def engine() -> None:
    """A reachable Docker engine, or the reason why there is none."""
    found = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(f"no Docker engine answers: {found.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A fresh project of this module's own; nothing of it survives the module."""
    # Two stacks of one organisation and environment would move each other's tags, and runs may be beside each other.
    organisation = f"Acme {os.getpid()}"
    baked = Project.bake(tmp_path_factory.mktemp("bake"), project_name="Acme Stack", organisation=organisation)
    yield baked
    baked.remove()


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


# A story is told in order: when a chapter fails, the later ones cannot be judged (recipe of pytest's own manual).
_broken: dict[str, str] = {}


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if "story" in item.keywords and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        _broken.setdefault(str(item.parent), item.name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "story" in item.keywords and str(item.parent) in _broken:
        pytest.fail(f"an earlier chapter failed: {_broken[str(item.parent)]}", pytrace=False)
