"""Lines of the log on standard error, one JSON object each, as the other services write theirs."""

from __future__ import annotations

import json
import sys
import time


def say(level: str, event: str, **fields: object) -> None:
    """Write a line. level: info, warning or error; event: what happened, in words."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"timestamp": moment, "level": level, "event": event, **fields}), file=sys.stderr, flush=True)
