"""A recovered moment as a portable archive, for the restore on the host."""

from __future__ import annotations
