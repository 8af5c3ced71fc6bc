"""PostgreSQL's major versions: which one an image is, and whether it fits what a volume holds.

One major cannot read another's files. infrastructure/postgres/guard.sh is the judge, at every start of a server; here
it is asked beforehand, so that a deploy is refused before anything is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import findings
from ops.base.environments import Environment, relative
from ops.base.errors import REFUSED, OpsError
from ops.base.findings import Check
from ops.engine import Container
from ops.stack.model import Stack

SETTING = "POSTGRES_IMAGE"
# Where every server has its volume, and within it each major its folder.
ROOT = "/var/lib/postgresql"
GUARD = Path("infrastructure", "postgres", "guard.sh")
_REFUSED = 3


@dataclass(frozen=True)
class Image:
    """An image of PostgreSQL. major: 0 when nobody can tell; folder: where its data is; present: on the engine."""

    reference: str
    major: int
    folder: str
    present: bool


@dataclass(frozen=True)
class Server:
    """A service that runs PostgreSQL. volume: its name on the engine; user: as whom it runs; role: as for guard.sh."""

    service: str
    volume: str
    user: str
    role: str
    built: bool = False


def folder_of(major: int) -> str:
    """Where a major keeps its data."""
    return f"{ROOT}/{major}/docker"


def image(reference: str) -> Image:
    """What is known of an image: from itself when it is on the engine, else from its tag."""
    found = engine.inspect([reference], "image") if reference else []
    if found:
        return described(reference, found[0])
    major = tagged_major(reference)
    return Image(reference, major, folder_of(major), present=False)


def described(reference: str, inspected: Mapping[str, Any]) -> Image:
    """An image as `docker image inspect` tells it."""
    variables = dict(each.partition("=")[::2] for each in inspected["Config"].get("Env") or ())
    major = variables.get("PG_MAJOR", "")
    return Image(reference, int(major) if major.isdigit() else 0, variables.get("PGDATA", ""), present=True)


def tagged_major(reference: str) -> int:
    """The major that a tag promises: "postgres:18.6-trixie" -> 18; 0 when it promises none."""
    match = re.search(r":(\d+)[^/]*$", reference.partition("@")[0])
    return int(match[1]) if match else 0


def servers(stack: Stack) -> list[Server]:
    """The services that run PostgreSQL: those with a volume where it keeps its data."""
    names = {key: entry["name"] for key, entry in (stack.document.get("volumes") or {}).items()}
    return [
        Server(
            name,
            names[volume["source"]],
            entry.get("user", ""),
            _role(entry.get("entrypoint") or ()),
            "build" in entry,
        )
        for name, entry in (stack.document.get("services") or {}).items()
        for volume in entry.get("volumes") or ()
        if volume["type"] == "volume" and volume["target"] == ROOT
    ]


def _role(entrypoint: Sequence[str]) -> str:
    """The word behind guard.sh; "primary", the strictest, for a service that is not guarded."""
    place = next((at for at, word in enumerate(entrypoint) if word.endswith(f"/{GUARD.name}")), -1)
    return entrypoint[place + 1] if 0 <= place < len(entrypoint) - 1 else "primary"


def check(env: Environment, stack: Stack, containers: Sequence[Container]) -> Iterator[Check]:
    """Whether the image that is declared can work with what the volumes hold.

    What runs well on the same major is not looked at; while an image that says nothing is not here, nobody can tell.
    """
    wanted = image(env.values.get(SETTING, ""))
    found = servers(stack)
    runs = running(containers)
    doubtful = [each for each in found if runs.get(each.service) != wanted.major] if wanted.major else []
    existing = {each["Name"] for each in engine.inspect([each.volume for each in doubtful], "volume")}
    refusals: dict[tuple[str, str], list[str]] = {}
    for server in doubtful:
        runner = wanted.reference if wanted.present else next(iter(_images(containers, server.service)), "")
        if server.volume in existing and runner and (refusal := _judge(env, server, wanted, runner)):
            refusals.setdefault(refusal, []).append(server.service)
    for (what, remedy), names in refusals.items():
        yield Check("database", findings.FAILED, f"{', '.join(names)}: {what}", remedy)
    if found and not refusals:
        major = f"PostgreSQL {wanted.major}" if wanted.major else "its image is not here yet"
        yield Check("database", findings.OK, f"{major}, as declared by {SETTING} in {relative(env.env_file)}")


def running(containers: Sequence[Container]) -> dict[str, int]:
    """The major by service, of what runs well: the guard had no objection then."""
    ready = [each for each in containers if each.ready]
    found = {each["Id"]: described("", each).major for each in engine.inspect(_distinct(ready), "image")}
    return {each.service: found[each.image_id] for each in ready if each.image_id in found}


def _images(containers: Sequence[Container], service: str) -> list[str]:
    mine = [each for each in containers if each.service == service]
    return [each["Id"] for each in engine.inspect(_distinct(mine), "image")]


def _distinct(containers: Sequence[Container]) -> list[str]:
    return list(dict.fromkeys(each.image_id for each in containers))


def _judge(env: Environment, server: Server, wanted: Image, runner: str) -> tuple[str, str] | None:
    """What guard.sh has against the wanted image on a volume, and the way out; None when it has nothing."""
    script = (env.project_dir / GUARD).read_text(encoding="utf-8")
    done = engine.run(judge_argv(server, wanted, runner, env.name), input=script, check=False)
    if done.ok:
        return None
    if done.code != _REFUSED:
        raise engine.failure(done)
    lines = done.stderr.splitlines()
    said = [line.removeprefix("postgres: ") for line in lines if line.startswith("postgres: ")]
    return said[0], " ".join(said[1:])


def judge_argv(server: Server, wanted: Image, runner: str, environment: str) -> list[str]:
    """The command line that asks guard.sh, given as standard input. runner: any image with bash; it changes nothing."""
    variables = {"PG_MAJOR": str(wanted.major), "PGDATA": wanted.folder, "ENVIRONMENT": environment}
    return engine.docker_argv(
        *("run", "--rm", "--interactive", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *(("--user", server.user) if server.user else ()),
        *("--volume", f"{server.volume}:{ROOT}:ro", "--entrypoint", "bash"),
        *(part for name, value in variables.items() for part in ("--env", f"{name}={value}")),
        *(runner, "-s", server.role),
    )


def refuse_unusable(wanted: Image) -> None:
    """Raise OpsError when an image says nothing about its major, or keeps its data elsewhere."""
    if not wanted.major:
        raise OpsError(
            f"{wanted.reference} does not say which major version of PostgreSQL it is (PG_MAJOR).",
            "Use the official image, or one built on it.",
            REFUSED,
        )
    if wanted.folder != folder_of(wanted.major):
        raise OpsError(
            f"{wanted.reference} keeps its data in {wanted.folder}, not in {folder_of(wanted.major)}.",
            "Use an official image from 18 on, or one laid out alike.",
            REFUSED,
        )
