"""Redis in an entry: its snapshot, and a throw-away server that it is restored into."""

from __future__ import annotations
