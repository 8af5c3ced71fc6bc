"""A throw-away server of this container, on a Unix socket."""

from __future__ import annotations
