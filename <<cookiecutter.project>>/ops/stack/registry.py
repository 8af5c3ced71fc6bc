"""Images of ours in a registry, for machines that did not build them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import BUILD, USAGE, OpsError
from ops.stack import images
from ops.stack.images import OwnImage

# What `docker push` says at its end.
_DIGEST = re.compile(r"digest: (?P<digest>sha256:[0-9a-f]{64})")


def host(reference: str) -> str:
    """The registry that a reference names; "" when it names none, which means Docker Hub."""
    first, separator, _ = reference.partition("/")
    return first if separator and ("." in first or ":" in first or first == "localhost") else ""


def refuse(env: Environment, own: Sequence[OwnImage]) -> None:
    """Raise OpsError (USAGE) when images cannot be pushed: nothing is built here, or no registry is named."""
    place = relative(env.env_file)
    if not own:
        raise OpsError(
            f"{env.name} builds no image here, so there is none to push.",
            f"{place}: IMAGE_SOURCE=build, or push where they are built.",
            USAGE,
        )
    if unnamed := next((each.reference for each in own if not host(each.reference)), ""):
        raise OpsError(
            f"{place}: IMAGE_PREFIX names no registry, so {unnamed} can be pushed nowhere.",
            "For example: IMAGE_PREFIX=registry.example.com/acme. Docker Hub: docker.io/acme",
            USAGE,
        )


def missing(own: Iterable[OwnImage]) -> list[OwnImage]:
    """Images whose content no registry has, as far as this machine knows: it has pushed or pulled it, or asks."""
    names = list({each.content: each for each in own}.values())
    with engine.pool(4) as pool:
        there = list(pool.map(lambda each: _is_known(each.content), names))
    return [each for each, known in zip(names, there, strict=True) if not known]


def _is_known(reference: str) -> bool:
    found = engine.inspect([reference], "image")
    repository = images.repository(reference)
    if any(images.repository(each) == repository for image in found for each in image.get("RepoDigests") or ()):
        return True
    return not found and engine.docker("manifest", "inspect", reference, check=False).ok


def push(references: Sequence[str], tick: Callable[[str], None]) -> dict[str, str]:
    """Push images, and return the digest of each. Raises OpsError (BUILD) with the reason of those that cannot be."""

    def one(reference: str) -> tuple[str, str, str]:
        # No limit of our own: a large image over a slow line takes as long as it takes, and Ctrl-C ends it.
        done = engine.docker("push", reference, check=False, timeout=None)
        tick(f"{reference} {'pushed' if done.ok else 'not pushed'}")
        match = _DIGEST.search(done.stdout)
        problem = "" if done.ok else engine.reason(done.stderr, f"exit code {done.code}")
        return reference, match["digest"] if match else "", problem

    with engine.pool(images.PARALLEL_PULLS) as pool:
        found = list(pool.map(one, references))
    if failed := {reference: problem for reference, _, problem in found if problem}:
        raise OpsError(
            f"{len(failed)} image(s) could not be pushed:\n{images.reasons(failed)}",
            f"Check that it answers, and log in: docker login {host(next(iter(failed)))}. What runs was not touched.",
            BUILD,
        )
    return {reference: digest for reference, digest, _ in found}
