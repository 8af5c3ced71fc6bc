"""The folder of this machine to which the part `backup` saves: made before its containers start."""

from __future__ import annotations

from pathlib import Path

from ops import engine
from ops.base.environments import Environment
from ops.parts.nginx import edge
from ops.stack import labels
from ops.stack.model import DATA, Stack

# The user of the part's containers.
_OWNER = 999
_FOLDER = "repository"


def folder(env: Environment) -> Path:
    """The folder of this checkout."""
    return env.project_dir / DATA / env.name / _FOLDER


def make_folder(env: Environment, declared: Stack) -> None:
    """Make backups/<env>/repository, which its containers mount, and give it to their user; nothing without the part.

    By a container, for whoever deploys may not give files away. Raises OpsError.
    """
    place = folder(env)
    if labels.BACKUPS not in declared.services:
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid != _OWNER:
        engine.docker(
            *("run", "--rm", "--network", "none", "--read-only", "--user", "0:0", "--cap-drop", "ALL"),
            *("--cap-add", "CHOWN", "--security-opt", "no-new-privileges", "--volume", f"{place}:/folder"),
            *("--entrypoint", "chown", declared.services[edge.SERVICE].image, f"{_OWNER}:{_OWNER}", "/folder"),
        )
