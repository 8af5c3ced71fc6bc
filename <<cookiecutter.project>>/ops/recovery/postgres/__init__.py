"""PostgreSQL: its write-ahead log, full and incremental backups, and recovery to a moment."""

from __future__ import annotations
