"""Volumes in an entry: the files of what docker-compose.backup-volumes.yml mounts."""

from __future__ import annotations
