"""The project itself in an entry: its configuration, certificates and release history."""

from __future__ import annotations
