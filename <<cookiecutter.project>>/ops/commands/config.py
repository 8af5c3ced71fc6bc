"""The configuration that an environment resolves to."""

from __future__ import annotations

import json
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.stack import model


def config(env: Environment, as_json: bool = False) -> None:
    """Show the resolved configuration; secrets are files, of which only the paths are in it."""
    command = engine.plain_command(env, "up", "--detach")
    if as_json:
        document: dict[str, Any] = {
            "environment": env.name,
            "command": command,
            "settings": env.values,
            "compose": model.load(env).document,
        }
        console.say(json.dumps(document, indent=2))
        return
    done = engine.compose(env, "config", check=False)
    if not done.ok:
        raise model.unresolved(env, done)
    console.say(f"# {env.name}: what `invoke deploy --env {env.name}` brings up, and equally, in the project's folder:")
    console.say(f"#   {command}")
    console.say(done.stdout.rstrip())
