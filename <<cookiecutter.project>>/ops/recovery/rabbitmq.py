"""RabbitMQ in an entry: its definitions."""

from __future__ import annotations
