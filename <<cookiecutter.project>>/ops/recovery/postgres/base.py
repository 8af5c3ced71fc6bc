"""Full and incremental backups by pg_basebackup."""

from __future__ import annotations
