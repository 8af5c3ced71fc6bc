"""Brings received WAL to every target."""

from __future__ import annotations
