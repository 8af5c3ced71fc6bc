"""Images: our own are built only when what goes into them has changed, third-party ones are pulled when missing.

Our images carry two tags: the one the Compose files name (IMAGE_TAG), and a digest of everything that went into the
build. The second tells whether a build is needed, on this machine, without building.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import BUILD, OpsError
from ops.engine import Container
from ops.stack import build_context
from ops.stack.model import Service, Stack

# The engine itself downloads three layers at a time by default.
PARALLEL_PULLS = 3
# What our images are labelled with when they are built; its value is the Compose project (docker-compose.yml).
LABEL = "ops.project"
# A line of BuildKit's plain output: of one of its steps.
_STEP = re.compile(r"#(?P<number>\d+) (?P<text>.*)")
_CONTENT = re.compile(r":[0-9a-f]{12}$")


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
    entries = stack.document.get("services") or {}
    return [
        OwnImage(name, service.image, content_reference(service.image, entries[name]["build"]))
        for name, service in stack.services.items()
        if is_built_here(env, service)
    ]


def content_reference(reference: str, build: Mapping[str, Any]) -> str:
    """The content tag of an image: its repository and 12 digits that stand for the build's settings and context."""
    # Where the context and the CA bundle lie on this machine says nothing about what is in the image.
    settings = {key: value for key, value in build.items() if key not in {"context", "secrets", "ssh", "tags"}}
    digest = hashlib.sha256(
        f"{build_context.digest(build)}\n{json.dumps(settings, sort_keys=True)}".encode()
    ).hexdigest()
    return f"{repository(reference)}:{digest[:12]}"


def repository(reference: str) -> str:
    """An image reference without its tag: "host:5000/acme/web:1" -> "host:5000/acme/web"."""
    head, separator, last = reference.partition("@")[0].rpartition("/")
    return f"{head}{separator}{last.partition(':')[0]}"


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
    """Build images and tag them by content. tick: called with the step that it is at while it works.

    Raises OpsError with the last lines when the build fails; all of it stays in .state/<env>/build.log.
    """
    if not own:
        return
    # Two nodes of a database run one image, which is built once.
    services = list({each.reference: each.service for each in own}.values())
    line = engine.compose_argv(env, "build", *(("--pull",) if newer_base else ()), *services)
    log = env.log_file("build.log")
    titles: dict[str, str] = {}
    if engine.logged(line, log, lambda _: tick(step(engine.tail(log, 60), titles)), **engine.surroundings(env)):
        tail = "\n".join(f"  {each}" for each in engine.tail(log, 15))
        raise OpsError(
            f"The build of {', '.join(services)} failed:\n{tail}",
            f"What runs was not touched. All of the build's output: {relative(log)}",
            BUILD,
        )
    tag((each.reference, each.content) for each in own)


def step(lines: Sequence[str], titles: dict[str, str]) -> str:
    """What a build is at, from the last lines of its output: "[web production 5/7] RUN …". titles: of the steps seen so
    far, by number; added to."""
    latest = ""
    for line in lines:
        if match := _STEP.fullmatch(line.strip()):
            number, text = match["number"], match["text"]
            if text.startswith("["):
                titles[number] = text
            latest = titles.get(number, latest)
    return latest


def tag(pairs: Iterable[tuple[str, str]]) -> None:
    """Give images a second name: (existing reference, new reference). One by digest means the same for ever."""
    for existing, new in pairs:
        if "@" not in new:
            engine.docker("tag", existing, new)


def tag_back(own: Iterable[OwnImage], containers: Iterable[Container]) -> None:
    """Let the names of images mean again what runs, after newer ones were built or pulled and turned out to be no good.

    A name that is new with the failed version was never that of what runs, so it is left alone.
    """
    running = {(each.service, each.image): each.image_id for each in containers if each.running}
    names = ((each.service, each.reference) for each in own)
    tag((running[name], name[1]) for name in names if name in running)


def is_built_here(env: Environment, service: Service) -> bool:
    """Whether an image comes from a build on this machine, which names it by its content too."""
    return service.built and env.values.get("IMAGE_SOURCE", "build") != "pull"


def pulled(env: Environment, stack: Stack) -> list[OwnImage]:
    """The images of the owner's services that are not built here. content: "", for it says nothing."""
    return [
        OwnImage(name, service.image, "")
        for name, service in stack.services.items()
        if service.own and not is_built_here(env, service)
    ]


def keep(env: Environment, running: Mapping[str, str]) -> None:
    """Give images that are not built here a name of ours, as their own one may move on to the next version, and what
    has no name is removed by the first `docker image prune`. running: image ids by service."""
    tag((identity, _kept(env, name, identity)) for name, identity in running.items())


def _kept(env: Environment, service: str, identity: str) -> str:
    return f"{env.project}/release/{service.lower()}:{identity.removeprefix('sha256:')[:12]}"


def forget(env: Environment) -> None:
    """Take away the names that `keep` gives: for when the releases that they were for are gone. Images that are not
    known by any other name go with them."""
    wanted = ("--filter", f"reference={env.project}/release/*", "--format", "{{.Repository}}:{{.Tag}}")
    if names := engine.docker("images", *wanted).stdout.split():
        engine.docker("rmi", *names, check=False)


def pull(references: Sequence[str], tick: Callable[[str], None]) -> dict[str, str]:
    """Pull images, a few at a time; the reason by reference for those that could not be had."""

    def one(reference: str) -> tuple[str, str]:
        # No limit of our own: a large image over a slow line takes as long as it takes, and Ctrl-C ends it.
        done = engine.docker("pull", "--quiet", reference, check=False, timeout=None)
        tick(f"{reference} {'pulled' if done.ok else 'not available'}")
        return reference, "" if done.ok else engine.reason(done.stderr, f"exit code {done.code}")

    with engine.pool(PARALLEL_PULLS) as pool:
        return {reference: reason for reference, reason in pool.map(one, references) if reason}


def prune(env: Environment, kept: Collection[str], pulled: Collection[str] = ()) -> list[str]:
    """Remove old images of an environment's own; what was removed. kept: image ids that one may want to go back to;
    pulled: references of the owner's images that are not built here.

    Only images with its label are looked at, and those that `keep` has named; what any container uses stays, and so
    does every volume.
    """
    label = f"{LABEL}={env.project}"
    ids = engine.docker("images", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").stdout.split()
    containers = engine.docker("ps", "--all", "--quiet", "--no-trunc").stdout.split()
    used = {each["Image"] for each in engine.inspect(containers)}
    removed = []
    ours = f"{env.project}/release/"
    named = engine.docker("images", "--quiet", "--no-trunc", "--filter", f"reference={ours}*").stdout.split()
    needed, repositories = {*kept, *used}, {repository(each) for each in pulled}
    for names in (
        *outdated(engine.inspect(list(dict.fromkeys(ids)), "image"), needed),
        *expired(engine.inspect(list(dict.fromkeys(named)), "image"), needed, ours, repositories),
    ):
        # Without force: a container that has come meanwhile keeps its image.
        if engine.docker("rmi", *names, check=False).ok:
            removed += names
    return removed


def outdated(found: Iterable[Mapping[str, Any]], kept: Collection[str]) -> list[list[str]]:
    """The names of images that are no longer needed, from `docker inspect`. kept: ids of those that are.

    Not needed is what has no name but that of its content: another name is a tag that somebody deploys.
    """
    return [
        list(image.get("RepoTags") or [image["Id"]])
        for image in found
        if image["Id"] not in kept and all(_CONTENT.search(name) for name in image.get("RepoTags") or ())
    ]


def expired(
    found: Iterable[Mapping[str, Any]], needed: Collection[str], ours: str, repositories: Collection[str]
) -> list[list[str]]:
    """The names, ours and those of its repository, of pulled images that no release needs, from `docker inspect`.

    needed: ids of those that one does; ours: how the names begin that `keep` gives; repositories: of the owner's images
    that are not built here.
    """
    return [
        [name for name in image["RepoTags"] if name.startswith(ours) or repository(name) in repositories]
        for image in found
        if image["Id"] not in needed
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
