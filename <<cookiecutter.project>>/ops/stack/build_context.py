"""What goes into an image we build: the part of its build context that its Dockerfile takes, as a digest.

It tells without a build whether a build would give another image. When in doubt a file counts: a needless build gives
the same image once more, a missing one would deploy the old.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# Never part of an image, whatever .dockerignore says: tools write them while people work.
_DEBRIS = (
    "__pycache__",
    ".venv",
    "node_modules",
    ".git",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    ".hypothesis",
    "*.pyc",
)
# One of these makes a folder that of a service, in whatever language.
_SERVICE = ("pyproject.toml", "package.json", "go.mod", "Dockerfile")
# The target of services/Dockerfile that has no tools for developers, and the file that names them.
_PRODUCTION, _TOOLS = "production", "requirements-dev.lock"


def digest(build: Mapping[str, Any]) -> str:
    """A digest of what goes into an image, from its `build` in the JSON of `docker compose config`: the Dockerfile, and
    paths, modes and contents of files. A context that is no folder of this machine (a git address) counts as nothing.
    """
    context = Path(build["context"])
    recipe = context / build.get("dockerfile", "Dockerfile")
    text = build.get("dockerfile_inline") or (recipe.read_text(encoding="utf-8") if recipe.is_file() else "")
    found = hashlib.sha256(text.encode())
    others = elsewhere(text, build.get("target", ""), packages(build.get("args") or {}), _services(context))
    for path in _files(context):
        if path.relative_to(context).parts[0] not in others:
            found.update(_entry(path, context))
    for place in (build.get("additional_contexts") or {}).values():
        for path in _files(Path(place)):
            found.update(_entry(path, Path(place)))
    return found.hexdigest()


def packages(args: Mapping[str, str | None]) -> tuple[str, ...]:
    """The packages that build arguments name, as services/Dockerfile reads them; none when they do not."""
    return tuple((args.get("PACKAGES") or args.get("SERVICE") or "").split())


def elsewhere(dockerfile: str, target: str, packages: Sequence[str], services: Iterable[str]) -> set[str]:
    """Names in a context that go into other images than this one: the folders of other services, and the lock of the
    developers' tools when the target is production.

    A Dockerfile that takes whatever fits a pattern may take anything, and one that names a service's folder takes that.
    """
    instructions = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    if not packages or "*" in instructions:
        return set()
    named = set(re.findall(r"[\w-]+", instructions))
    others = set(services) - {"common", *packages} - named
    return others | ({_TOOLS} if target == _PRODUCTION else set())


def _services(context: Path) -> set[str]:
    return {path.parent.name for mark in _SERVICE for path in context.glob(f"*/{mark}")}


def _files(context: Path) -> Iterable[Path]:
    if not context.is_dir():
        return
    ignore = context / ".dockerignore"
    patterns = _patterns(ignore.read_text(encoding="utf-8")) if ignore.is_file() else []
    yield from _walk(context, context, patterns)


def _entry(path: Path, context: Path) -> bytes:
    # A link goes in as a link: what it leads to counts where that is. All of the mode does: root copies, another reads.
    content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    name = os.fsencode(path.relative_to(context))
    return b"\0".join((name, f"{path.lstat().st_mode:o}".encode(), hashlib.sha256(content).digest()))


def _walk(folder: Path, context: Path, patterns: Sequence[str]) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, each) for each in _DEBRIS):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, context, patterns)
        elif (path.is_file() or path.is_symlink()) and not ignored(path.relative_to(context).as_posix(), patterns):
            yield path


def _patterns(text: str) -> list[str]:
    return [line.strip().strip("/") for line in text.splitlines() if line.strip() and not line.startswith("#")]


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore leaves a file out: the last pattern that fits it, or a folder it is in, decides."""
    verdict = False
    parts = path.split("/")
    prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for pattern in patterns:
        wanted = not pattern.startswith("!")
        glob = pattern.removeprefix("!").strip("/")
        candidates = [glob, glob.removeprefix("**/")] if glob.startswith("**/") else [glob]
        if any(_fits(prefix, each) for prefix in prefixes for each in candidates):
            verdict = wanted
    return verdict


def _fits(path: str, glob: str) -> bool:
    # Unlike fnmatch, a * of .dockerignore does not cross a slash; ** does.
    if "**" in glob:
        return fnmatch(path, glob)
    return path.count("/") == glob.count("/") and fnmatch(path, glob)
