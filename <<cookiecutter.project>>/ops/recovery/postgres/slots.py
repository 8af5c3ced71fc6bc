"""The replication slot by which servers keep WAL until it has been received."""

from __future__ import annotations
