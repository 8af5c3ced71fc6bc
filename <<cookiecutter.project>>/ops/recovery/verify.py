"""Proves an entry: restores it into servers of this container and compares."""

from __future__ import annotations
