"""Folders of the project that containers read, as ConfigMaps.

A ConfigMap is immutable and named by its content: a change is a new one, so pods that read the old one keep it until
they are replaced, and a rollback finds what it needs.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.base.errors import USAGE, OpsError
from ops.kubernetes.values import Manifest, digest, made, object_name, without_empty

# What the API server accepts in one object.
LIMIT = 1024 * 1024
# Files that take the place of others in a cluster: infrastructure/kubernetes/PATH that of infrastructure/PATH.
_INSTEAD = Path("infrastructure")
_FOLDER = _INSTEAD / "kubernetes"


def files(root: Path, source: Path) -> dict[str, tuple[bytes, bool]]:
    """Content of every file below a mounted folder, or of a mounted file, by its path there, and whether it is a
    program.

    root: the project. Hidden files and caches are no configuration. Raises OpsError when one cannot be read.
    """
    if source.is_file():
        found = {source.name: source}
    else:
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        found = {path.relative_to(source).as_posix(): path for path in paths}
    try:
        return {
            name: (_instead(root, path).read_bytes(), os.access(path, os.X_OK))
            for name, path in found.items()
            if not any(part.startswith((".", "__pycache__")) for part in name.split("/"))
        }
    except OSError as error:
        raise OpsError(f"{error.filename} cannot be read: {error.strerror}.", "Check its owner and mode.") from None


def _instead(root: Path, path: Path) -> Path:
    """The file that says in a cluster what this one says on one machine."""
    if path.is_relative_to(root / _INSTEAD):
        other = root / _FOLDER / path.relative_to(root / _INSTEAD)
        if other.is_file():
            return other
    return path


def key(path: str) -> str:
    """A file's path as a key of a ConfigMap: errors/page.html -> errors__page.html."""
    return path.replace("/", "__")


def config_map(name: str, contents: Mapping[str, bytes]) -> Manifest:
    """Files as a ConfigMap. Raises OpsError (USAGE) when they are too many for one."""
    size = sum(map(len, contents.values()))
    if size > LIMIT:
        raise OpsError(
            f"The files mounted as {name} take {size // 1024} KiB; a ConfigMap holds {LIMIT // 1024}.",
            "Put them into the image, or keep them in a volume.",
            USAGE,
        )
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for path, content in contents.items():
        try:
            text[key(path)] = content.decode()
        except UnicodeDecodeError:
            binary[key(path)] = b64encode(content).decode()
    data: dict[str, Any] = without_empty({"data": text, "binaryData": binary})
    return made("ConfigMap", f"{object_name(name)}-{digest(data)}", immutable=True, **data)


def mounted(config: Manifest, contents: Mapping[str, tuple[bytes, bool]]) -> Manifest:
    """The volume of a pod that shows the files where they were, with the right to run those that are programs."""
    source: Manifest = {"name": config["metadata"]["name"], "defaultMode": 0o444}
    if any("/" in path or program for path, (_, program) in contents.items()):
        source["items"] = [
            {"key": key(path), "path": path, **({"mode": 0o555} if program else {})}
            for path, (_, program) in contents.items()
        ]
    return {"configMap": source}
