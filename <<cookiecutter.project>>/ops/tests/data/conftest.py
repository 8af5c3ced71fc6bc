"""What the tests of backup, restore and upgrade share."""

from __future__ import annotations

import pytest

from ops.parts import services


@pytest.fixture(autouse=True)
def _no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is at work, unless a test says so."""
    monkeypatch.setattr(services, "stop_jobs", lambda _env, _declared: None)
