"""Options of `docker run` that let a service's container start alone: its user, mounts and settings."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def docker(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the docker client and return what came out, whatever the exit code."""
    return subprocess.run(["docker", *arguments], input=input, capture_output=True, text=True, timeout=120)


def options(
    service: dict[str, Any], project: Path, secrets: Path, replaced: dict[str, Path], network: str = "none"
) -> list[str]:
    """The options for a service of the resolved configuration.

    secrets: the folder that becomes /run/secrets. replaced: a folder of the test's own for the mount at a path.
    """

    def source(volume: dict[str, Any]) -> Path | None:
        if volume["target"] in replaced:
            return replaced[volume["target"]]
        bound = volume["type"] == "bind" and Path(volume["source"]).is_relative_to(project)
        return Path(volume["source"]) if bound else None

    mounts = [(source(volume), volume["target"]) for volume in service.get("volumes", [])]
    return [
        *(f"--network={network}", "--read-only", "--cap-drop=ALL", f"--user={service['user']}"),
        *(f"--volume={folder}:{target}:ro" for folder, target in mounts if folder),
        *(f"--env={name}={value or ''}" for name, value in (service.get("environment") or {}).items()),
        *(f"--tmpfs={entry}" for entry in service.get("tmpfs", []) if not entry.startswith("/tmp")),
        *("--tmpfs=/tmp", f"--volume={secrets}:/run/secrets:ro"),
    ]
