"""What the tests of backups share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

# Of what takes no second when it does not wait for ever.
_SECONDS = 20


@pytest.fixture
def _in_time() -> Iterator[None]:
    """A test that waits for ever fails."""

    def late(*_args: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
