"""Takes an entry: every part of the stack at one moment, and last the record that makes it one."""

from __future__ import annotations
