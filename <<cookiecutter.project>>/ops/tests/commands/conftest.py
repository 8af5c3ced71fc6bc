"""What the tests of the commands share."""

from __future__ import annotations

import pytest

from ops import engine
from ops.data import scratch


@pytest.fixture(autouse=True)
def _nothing_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one-off container runs, unless a test says so."""
    monkeypatch.setattr(engine, "one_offs", lambda _env: [])


@pytest.fixture(autouse=True)
def _no_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server beside the stack, unless a test says so."""
    monkeypatch.setattr(scratch, "find", lambda _env: None)
    monkeypatch.setattr(scratch, "drop", lambda _env: False)
