"""What was deployed when."""

from __future__ import annotations

import json

from ops.base import console
from ops.base.environments import Environment
from ops.state import lock
from ops.state import releases as history


def releases(env: Environment, as_json: bool = False) -> None:
    """Show the history of releases."""
    found = history.history(env, busy=bool(lock.holder(env)))
    if as_json:
        console.say(json.dumps(history.as_json(env, found), indent=2))
    else:
        history.show(env, found)
