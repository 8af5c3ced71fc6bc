"""Recovers a moment: a full backup, the incremental ones on it, and WAL."""

from __future__ import annotations
