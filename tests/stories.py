"""A story is told in order: when a chapter fails, the later ones cannot be judged (recipe of pytest's own manual).

Hooks of pytest for tests that are marked as one: a conftest.py imports them.
"""

from __future__ import annotations

import pytest

_broken: dict[str, str] = {}


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if "story" in item.keywords and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        _broken.setdefault(str(item.parent), item.name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "story" in item.keywords and str(item.parent) in _broken:
        pytest.fail(f"an earlier chapter failed: {_broken[str(item.parent)]}", pytrace=False)
