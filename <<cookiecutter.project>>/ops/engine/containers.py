"""What exists on the engine: containers and images, as `docker inspect` tells them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ops.base.environments import Environment
from ops.engine import cli, kubectl, process
from ops.engine.results import failure

_HELD = "com.docker.compose."


@dataclass(frozen=True)
class Container:
    """A container of the project, as `docker inspect` tells it. Times are seconds since the epoch (0 = never)."""

    id: str
    name: str
    service: str
    number: int
    state: str  # created, running, restarting, paused, exited, dead
    health: str  # starting, healthy, unhealthy; "" without a health check
    image_id: str
    image: str
    config_hash: str
    created: float
    started: float
    finished: float = 0.0
    exit_code: int = 0
    restarts: int = 0
    oom_killed: bool = False
    error: str = ""
    health_log: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)  # by network; none while it does not run
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # its names, by network
    restart_policy: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)  # files and folders of the host, by place in the container

    @property
    def folder(self) -> str:
        """The project's folder that it was made from; its configuration hash holds that path."""
        return self.labels.get(f"{_HELD}project.working_dir", "")

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def ready(self) -> bool:
        """Running, and healthy as far as it can say."""
        return self.running and self.health in {"healthy", ""}

    @property
    def looping(self) -> bool:
        """It keeps restarting: it serves nobody, and whatever is started in it may end at once."""
        return self.state == "restarting" or (self.restarts > 0 and self.health == "starting")


def processors() -> int:
    """How many processors the engine has; at least 1."""
    return max(1, int(cli.docker("info", "--format", "{{.NCPU}}").stdout.strip() or 1))


# What docker says of each thing that `inspect` did not find, whatever its kind.
_ABSENT = re.compile(r"no such (?:object|container|image|volume|network)|network \S+ not found", re.IGNORECASE)


def inspect(ids: Sequence[str], kind: str = "container") -> list[dict[str, Any]]:
    """`docker inspect` of several objects in one call; those that do not exist (any more) are left out.

    Raises OpsError when the engine fails: that says nothing about what exists.
    """
    if not ids:
        return []
    done = cli.docker("inspect", "--type", kind, *ids, check=False)
    complaints = [line for line in done.stderr.splitlines() if line.strip()]
    if not done.ok and not (complaints and all(_ABSENT.search(line) for line in complaints)):
        raise failure(done)
    found: list[dict[str, Any]] = done.json()
    return found


def image_ids(references: Sequence[str]) -> dict[str, str]:
    """Image id of each reference that is present on the engine."""
    found: dict[str, str] = {}
    for image in inspect(list(dict.fromkeys(references)), "image"):
        for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()), image["Id"]):
            found[name] = image["Id"]
    return {name: found[key] for name in references if (key := canonical(name)) in found or (key := name) in found}


def canonical(reference: str) -> str:
    """An image reference as the engine lists it: with a tag or a digest, without docker.io/ and library/."""
    name = re.sub(r"^(?:docker\.io/)?(?:library/)?", "", reference)
    if "@" in name:
        # A digest decides alone: the engine lists postgres:18.6@sha256:… as postgres@sha256:….
        tagged, _, digest = name.partition("@")
        head, slash, last = tagged.rpartition("/")
        return f"{head}{slash}{last.partition(':')[0]}@{digest}"
    if ":" in name.rsplit("/", 1)[-1] or name.startswith("sha256:"):
        return name
    return f"{name}:latest"


def containers(env: Environment) -> list[Container]:
    """Every container of the project, stopped ones too, one-off ones not."""
    return _listed(env, one_off=False)


def one_offs(env: Environment) -> list[Container]:
    """The containers of `invoke run` and `docker compose run`: they are beside the replicas, and none of them."""
    return _listed(env, one_off=True)


def _listed(env: Environment, one_off: bool) -> list[Container]:
    listed = cli.docker(
        *("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_HELD}project={env.project}"),
        *("--filter", f"label={_HELD}oneoff={one_off}"),
    )
    return look(listed.stdout.split())


def look(ids: Sequence[str]) -> list[Container]:
    """Some containers, as they are now; those that are gone are left out."""
    found = [container(each) for each in inspect(ids)]
    return sorted(found, key=lambda each: (each.service, each.number, each.created))


def container(inspected: Mapping[str, Any]) -> Container:
    """A Container from one element of `docker inspect`."""
    state, config = inspected["State"], inspected["Config"]
    labels = config.get("Labels") or {}
    health = state.get("Health") or {}
    return Container(
        id=inspected["Id"],
        name=inspected["Name"].removeprefix("/"),
        service=labels.get(f"{_HELD}service", ""),
        number=int(labels.get(f"{_HELD}container-number") or 0),
        state=state["Status"],
        health=status if (status := health.get("Status", "")) != "none" else "",
        image_id=inspected["Image"],
        image=config.get("Image", ""),
        config_hash=labels.get(f"{_HELD}config-hash", ""),
        created=timestamp(inspected.get("Created", "")),
        started=timestamp(state.get("StartedAt", "")),
        finished=timestamp(state.get("FinishedAt", "")),
        exit_code=state.get("ExitCode", 0),
        restarts=inspected.get("RestartCount", 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
        health_log=tuple(entry.get("Output", "").strip() for entry in health.get("Log") or ()),
        ports=tuple(_published(inspected.get("NetworkSettings") or {})),
        labels=labels,
        addresses=_addresses(inspected.get("NetworkSettings") or {}),
        aliases=_aliases(inspected.get("NetworkSettings") or {}),
        restart_policy=((inspected.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name", ""),
        mounts=_binds(inspected.get("Mounts") or ()),
    )


def _binds(mounts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {each["Destination"]: each["Source"] for each in mounts if each.get("Type") == "bind"}


def _published(network: Mapping[str, Any]) -> list[str]:
    return sorted(
        f"{binding['HostIp']}:{binding['HostPort']}->{target.removesuffix('/tcp')}"
        for target, bindings in (network.get("Ports") or {}).items()
        for binding in bindings or ()
    )


def _addresses(network: Mapping[str, Any]) -> dict[str, str]:
    networks = network.get("Networks") or {}
    return {name: each["IPAddress"] for name, each in sorted(networks.items()) if each.get("IPAddress")}


def _aliases(network: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    networks = network.get("Networks") or {}
    return {name: tuple(each.get("Aliases") or ()) for name, each in sorted(networks.items())}


def timestamp(text: str) -> float:
    """Seconds since the epoch of a time as Docker prints it (nanoseconds, Z or offset); 0 for "never"."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)", text)
    if not match or text.startswith("0001"):
        return 0.0
    return datetime.fromisoformat(f"{match[1]}{match[2] or ''}{match[3].replace('Z', '+00:00')}").timestamp()


def logs(container_id: str, lines: int = 20) -> list[str]:
    """The last lines of a container's output, both streams in the order in which they were kept."""
    options = ("--tail", str(lines))
    if pod := kubectl.pod(container_id):
        done = process.run(kubectl.logs_argv(pod, *options), check=False, merge=True)
        if not (done.ok and done.stdout.strip()):
            # It was restarted, or is about to be: what it wrote before says why.
            done = process.run(kubectl.logs_argv(pod, *options, "--previous"), check=False, merge=True)
        if not done.ok:
            # It has not written anything yet: what kubectl says instead is no line of the container's.
            return []
    else:
        done = cli.docker("logs", *options, container_id, check=False, merge=True)
    return [line for line in done.stdout.splitlines() if line.strip()][-lines:]
