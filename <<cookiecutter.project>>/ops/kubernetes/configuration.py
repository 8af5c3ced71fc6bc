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
from ops.stack.build_context import ignored

# What the API server accepts in one object.
LIMIT = 1024 * 1024
# Files that take the place of others in a cluster: infrastructure/kubernetes/PATH that of infrastructure/PATH.
_INSTEAD = Path("infrastructure")
_FOLDER = _INSTEAD / "kubernetes"


def files(root: Path, source: Path) -> dict[str, tuple[bytes, bool]]:
    """Content of every file below a mounted folder, or of a mounted file, by its path there, and whether it is a
    program.

    root: the project. Hidden files, caches and what git ignores are no configuration: another checkout, from which
    somebody else deploys, has none of them. Raises OpsError when one cannot be read.
    """
    ignored = {*unversioned(root, source)}
    try:
        return {
            name: (_instead(root, path).read_bytes(), os.access(path, os.X_OK))
            for name, path in _found(source).items()
            if path not in ignored
        }
    except OSError as error:
        raise OpsError(f"{error.filename} cannot be read: {error.strerror}.", "Check its owner and mode.") from None


def unversioned(root: Path, source: Path) -> list[Path]:
    """The files below a mounted folder that the project's .gitignore names: what commands write, keys, leftovers."""
    rules = root / ".gitignore"
    patterns = _patterns(rules.read_text(encoding="utf-8")) if rules.is_file() else []
    return [path for path in _found(source).values() if ignored(path.relative_to(root).as_posix(), patterns)]


def _patterns(text: str) -> list[str]:
    """The lines of a .gitignore. One without a slash inside means files in whatever folder."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line if "/" in line.strip("!/") else f"{'!' * line.startswith('!')}**/{line.strip('!/')}" for line in lines]


def _found(source: Path) -> dict[str, Path]:
    """Every file below a folder, or a file by itself, by its path there; none that is hidden or a cache."""
    if source.is_file():
        return {source.name: source}
    found = {path.relative_to(source): path for path in sorted(source.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in found.items()
        if not any(part.startswith((".", "__pycache__")) for part in name.parts)
    }


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
