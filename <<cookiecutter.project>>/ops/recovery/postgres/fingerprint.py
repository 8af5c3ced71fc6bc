"""Counts and checksums of every table at one exact position of the WAL."""

from __future__ import annotations
