"""What the tests of the commands share."""

from __future__ import annotations

import pytest

from ops import engine


@pytest.fixture(autouse=True)
def _nothing_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one-off container runs, unless a test says so."""
    monkeypatch.setattr(engine, "one_offs", lambda _env: [])
