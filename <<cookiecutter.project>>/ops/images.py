"""Images: our own are built only when what goes into them has changed, third-party ones are pulled when missing.

Our images carry two tags: the one the Compose files name (IMAGE_TAG), and a digest of everything that went into the
build. The second tells whether a build is needed, on this machine, without building.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ops import engine
from ops.engine import Container
from ops.environments import Environment, relative
from ops.errors import BUILD, OpsError
from ops.stack import Stack

# The engine itself downloads three layers at a time by default.
PARALLEL_PULLS = 3
# What our images are labelled with when they are built; its value is the Compose project (docker-compose.yml).
LABEL = "ops.project"
_CONTENT = re.compile(r":[0-9a-f]{12}$")
# Never part of an image, whatever .dockerignore says: tools write them while people work.
_DEBRIS = ("__pycache__", ".venv", ".git", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", "*.pyc")


@dataclass(frozen=True)
class OwnImage:
    """An image we build. reference: as the Compose files name it; content: the same name, tagged by what went in."""

    service: str
    reference: str
    content: str


@dataclass(frozen=True)
class Needs:
    """What must happen before every image is there."""

    build: tuple[OwnImage, ...] = ()
    tag: tuple[OwnImage, ...] = ()
    pull: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.build or self.tag or self.pull)


def own_images(env: Environment, stack: Stack) -> list[OwnImage]:
    """The images we build. None when the environment takes finished ones (IMAGE_SOURCE=pull)."""
    if env.values.get("IMAGE_SOURCE", "build") == "pull":
        return []
    contexts: dict[tuple[Path, str], str] = {}
    found = []
    for name, service in stack.services.items():
        if service.built:
            build = stack.document["services"][name]["build"]
            args = build.get("args") or {}
            key = Path(build["context"]), args.get("PACKAGES") or args.get("SERVICE") or ""
            if key not in contexts:
                contexts[key] = context_digest(key[0], build.get("dockerfile", "Dockerfile"), key[1].split())
            found.append(OwnImage(name, service.image, content_reference(service.image, build, contexts[key])))
    return found


def content_reference(reference: str, build: Mapping[str, Any], context: str) -> str:
    """The content tag of an image: its repository and 12 digits that stand for the build's settings and context."""
    # Where the context and the CA bundle lie on this machine says nothing about what is in the image.
    settings = {key: value for key, value in build.items() if key not in {"context", "secrets", "ssh", "tags"}}
    digest = hashlib.sha256(f"{context}\n{json.dumps(settings, sort_keys=True)}".encode()).hexdigest()
    return f"{repository(reference)}:{digest[:12]}"


def repository(reference: str) -> str:
    """An image reference without its tag: "host:5000/acme/web:1" -> "host:5000/acme/web"."""
    head, separator, last = reference.rpartition("/")
    return f"{head}{separator}{last.partition(':')[0]}"


def context_digest(context: Path, dockerfile: str = "Dockerfile", packages: Sequence[str] = ()) -> str:
    """A digest of names, modes and contents of the Dockerfile and everything in its context that .dockerignore lets
    through.

    packages: the folders of the context that are built in; other services' folders do not count (none: all do).
    """
    ignore = context / ".dockerignore"
    patterns = _patterns(ignore.read_text(encoding="utf-8")) if ignore.is_file() else []
    digest = hashlib.sha256()
    others = _other_services(context, packages) if packages else set()
    for path in (context / dockerfile, *_walk(context, context, patterns)):
        if path.relative_to(context).parts[0] in others:
            continue
        executable = "x" if path.stat().st_mode & 0o100 else "-"
        digest.update(f"{path.relative_to(context).as_posix()}\0{executable}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _other_services(context: Path, packages: Sequence[str]) -> set[str]:
    """Folders of services that are not built in. What is no service's own folder may be anybody's."""
    services = {path.parent.name for path in context.glob("*/pyproject.toml")}
    return services - {"common", *packages}


def _walk(folder: Path, context: Path, patterns: Sequence[str]) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, each) for each in _DEBRIS):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, context, patterns)
        elif path.is_file() and not ignored(path.relative_to(context).as_posix(), patterns):
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


def references(stack: Stack, own: Iterable[OwnImage]) -> list[str]:
    """Every image reference worth looking up on the engine."""
    return list(dict.fromkeys([*(each.image for each in stack.services.values()), *(each.content for each in own)]))


def needs(stack: Stack, own: Sequence[OwnImage], present: Mapping[str, str]) -> Needs:
    """What is missing, given the image ids that are present by reference."""
    ours = {each.reference for each in own}
    pull = dict.fromkeys(
        each.image for each in stack.services.values() if each.image not in ours and each.image not in present
    )
    return Needs(
        build=tuple(each for each in own if each.content not in present),
        tag=tuple(
            each for each in own if each.content in present and present.get(each.reference) != present[each.content]
        ),
        pull=tuple(pull),
    )


def build(env: Environment, own: Sequence[OwnImage], tick: Callable[[str], None], *, newer_base: bool = False) -> None:
    """Build images and tag them by content. tick: called with the last line of output while it works.

    Raises OpsError with the last lines when the build fails; all of it stays in .state/<env>/build.log.
    """
    if not own:
        return
    services = [each.service for each in own]
    line = engine.compose_argv(env, "build", *(("--pull",) if newer_base else ()), *services)
    log = env.state_dir / "build.log"
    if engine.logged(line, log, tick, **engine.surroundings(env)):
        tail = "\n".join(f"  {each}" for each in engine.tail(log, 15))
        raise OpsError(
            f"The build of {', '.join(services)} failed:\n{tail}",
            f"What runs was not touched. All of the build's output: {relative(log)}",
            BUILD,
        )
    tag((each.reference, each.content) for each in own)


def tag(pairs: Iterable[tuple[str, str]]) -> None:
    """Give images a second name: (existing reference, new reference)."""
    for existing, new in pairs:
        engine.docker("tag", existing, new)


def tag_back(own: Iterable[OwnImage], containers: Iterable[Container]) -> None:
    """Let the names of our images mean again what runs, after newer ones were built and turned out to be no good."""
    running = {each.service: each.image_id for each in containers if each.running}
    tag((running[each.service], each.reference) for each in own if each.service in running)


def pull(references: Sequence[str], tick: Callable[[str], None]) -> dict[str, str]:
    """Pull images, a few at a time; the reason by reference for those that could not be had."""

    def one(reference: str) -> tuple[str, str]:
        # No limit of our own: a large image over a slow line takes as long as it takes, and Ctrl-C ends it.
        done = engine.docker("pull", "--quiet", reference, check=False, timeout=None)
        tick(f"{reference} {'pulled' if done.ok else 'not available'}")
        lines = done.stderr.strip().splitlines()
        reason = lines[-1].removeprefix("Error response from daemon: ") if lines else f"exit code {done.code}"
        return reference, "" if done.ok else reason

    with ThreadPoolExecutor(PARALLEL_PULLS) as pool:
        return {reference: reason for reference, reason in pool.map(one, references) if reason}


def prune(env: Environment, kept: Collection[str]) -> list[str]:
    """Remove old images of an environment's own; what was removed. kept: image ids that one may want to go back to.

    Only images with its label are looked at, and what a container uses the engine keeps anyway. Never volumes.
    """
    label = f"{LABEL}={env.project}"
    ids = engine.docker("images", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").stdout.split()
    removed = []
    for names in outdated(engine.inspect(list(dict.fromkeys(ids)), "image"), kept):
        if engine.docker("rmi", *names, check=False).ok:
            removed += names
    return removed


def outdated(found: Iterable[Mapping[str, Any]], kept: Collection[str]) -> list[list[str]]:
    """The names of images that are no longer needed, from `docker inspect`.

    That is what is not kept, and has no name but that of its content: another name is a tag that somebody deploys.
    """
    return [
        list(image.get("RepoTags") or [image["Id"]])
        for image in found
        if image["Id"] not in kept and all(_CONTENT.search(name) for name in image.get("RepoTags") or ())
    ]


def reasons(failed: Mapping[str, str]) -> str:
    """Why images could not be pulled, a line for each reason: often it is the same one for all."""
    alike: dict[str, list[str]] = {}
    for reference, reason in failed.items():
        alike.setdefault(reason, []).append(reference)
    return "\n".join(f"  {', '.join(references)}: {reason}" for reason, references in alike.items())


def unavailable(env: Environment, failed: Mapping[str, str]) -> OpsError:
    """The error for images that are neither on the engine nor to be had from a registry."""
    mirror = env.values.get("REGISTRY_MIRROR", "")
    return OpsError(
        f"{len(failed)} image(s) are not on this machine and could not be pulled:\n{reasons(failed)}",
        f"Check the network, load them with `docker load`, or {'check' if mirror else 'set'} REGISTRY_MIRROR"
        f" in {relative(env.env_file)}{f' (now {mirror})' if mirror else ''}.",
        BUILD,
    )
