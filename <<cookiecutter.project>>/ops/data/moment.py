"""The moment to which a restore brings PostgreSQL (`restore --to`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ops.base.errors import USAGE, OpsError

# As far as the write-ahead log reaches.
NEWEST = "newest"
_EXAMPLE = '--to "2026-11-22 14:03:00+09:00"'
_FORM = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?) ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?", re.ASCII)


def parse(text: str, now: datetime) -> datetime | None:
    """The moment that was typed; None for "newest". now: with the time zone of this machine.

    Raises OpsError (USAGE) for anything that could mean two moments, is no moment, or has not come yet.
    """
    if text.strip() == NEWEST:
        return None
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise OpsError(f'--to "{text}" is not a time.', f"Write {_EXAMPLE}, or --to {NEWEST}.", USAGE)
    day, clock, zone = match.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{clock}")
    except ValueError as error:
        raise OpsError(f'--to "{text}" is not a time: {error}.', f"Write {_EXAMPLE}.", USAGE) from None
    if not zone:
        here = local.replace(tzinfo=now.tzinfo)
        raise OpsError(
            f'--to "{text}" has no time zone.',
            f'In that of this machine it is --to "{here.isoformat(" ")}", in UTC --to "{local.isoformat(" ")}Z".',
            USAGE,
        )
    offset = "+00:00" if zone in {"Z", "UTC"} else zone
    try:
        found = datetime.fromisoformat(f"{day}T{clock}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise OpsError(f'--to "{text}": {zone} is not a time zone.', f"Write {_EXAMPLE}.", USAGE) from None
    if found > now:
        raise OpsError(f'--to "{text}" has not come yet.', f"It is {now.isoformat(' ', 'seconds')} now.", USAGE)
    return found
