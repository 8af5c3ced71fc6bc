"""Entries of the catalogue: what an entry holds, which there are, how long each is kept."""

from __future__ import annotations
