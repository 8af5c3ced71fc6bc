"""Receives the write-ahead log from whoever is the primary, for as long as this container runs."""

from __future__ import annotations

from ops.recovery.settings import Settings


def run(settings: Settings) -> int:
    """Receive until SIGTERM."""
    raise NotImplementedError(settings.environment)
