"""A restic repository at a target: what is saved, found, copied, forgotten and checked in it."""

from __future__ import annotations
