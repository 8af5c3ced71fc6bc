"""The stack as it is declared: what `docker compose config` resolves for an environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import USAGE, OpsError
from ops.scheduler import schedule
from ops.scheduler.schedule import Schedule
from ops.stack import labels


@dataclass(frozen=True)
class Port:
    """A port published on the host. address "" means every address."""

    address: str
    number: int
    protocol: str = "tcp"

    def clashes(self, other: Port) -> bool:
        """Whether both cannot be published at once."""
        everywhere = {"", "0.0.0.0", "::"}
        same = self.address == other.address or bool({self.address, other.address} & everywhere)
        return same and (self.number, self.protocol) == (other.number, other.protocol)


# The folder of the project that holds backups.
DATA = "backups"


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host that a container sees: a bind mount, a secret or a config."""

    source: Path
    target: str

    def configures(self, project_dir: Path) -> bool:
        """Whether it holds files of the project that a container reads, and no data that one has written there."""
        return self.source.is_relative_to(project_dir) and not self.source.is_relative_to(project_dir / DATA)


@dataclass(frozen=True)
class Service:
    """A service as declared. Memory in bytes (0: no limit), times in seconds. labels: what they mean is in labels.py;
    built: whether its image is built here; one_shot: it runs to its end."""

    name: str
    image: str
    replicas: int = 1
    built: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    one_shot: bool = False
    profiles: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    memory_limit: int = 0
    memory_reserved: int = 0
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    has_health: bool = False
    probe_seconds: float = 0  # interval + timeout of its health check

    @property
    def own(self) -> bool:
        """It is the owner's, and no part of the stack."""
        return not labels.PARTS & self.labels.keys()

    @property
    def stateful(self) -> bool:
        """It holds data: never run beside its successor."""
        return labels.STATEFUL in self.labels

    @property
    def data(self) -> bool:
        """It is in the data tier."""
        return self.stateful or self.labels.get(labels.TIER) == labels.DATA

    @property
    def monitoring(self) -> bool:
        """It only watches: the site serves without it."""
        return self.labels.get(labels.TIER) == labels.MONITORING

    @property
    def job(self) -> str:
        """When it runs, if it runs to its end: labels.MIGRATION, MANUAL or SCHEDULED; "" for every other service."""
        if labels.SCHEDULE in self.labels:
            return labels.SCHEDULED
        said = self.labels.get(labels.JOB, "")
        return said if said in {labels.MIGRATION, labels.MANUAL} else ""

    @property
    def schedule(self) -> Schedule | None:
        """Its times, if it is a scheduled job. Raises ScheduleError when the labels do not make sense."""
        return schedule.parse(self.labels)

    @property
    def on_demand(self) -> bool:
        """It is a job that no deploy runs: it waits for a person, or for its time."""
        return self.job in {labels.MANUAL, labels.SCHEDULED}

    @property
    def restarts(self) -> bool:
        """It must not run beside its successor, although it holds no data: it says so, or has a port of the host."""
        return bool(self.ports) or self.labels.get(labels.ROLLOUT) == labels.RESTART


@dataclass(frozen=True)
class Stack:
    """Every service of the active profiles, and the document they were read from."""

    name: str
    services: dict[str, Service]
    document: Mapping[str, Any]

    @property
    def lasting(self) -> dict[str, Service]:
        """Services that are meant to keep running."""
        return {name: each for name, each in self.services.items() if not each.one_shot and each.replicas}

    @property
    def monitoring(self) -> dict[str, Service]:
        """Services that watch the others and keep their logs. The site serves without them."""
        return {name: each for name, each in self.lasting.items() if each.monitoring}

    @property
    def site(self) -> dict[str, Service]:
        """Services that the site needs to serve."""
        return {name: each for name, each in self.lasting.items() if name not in self.monitoring}

    @property
    def rolling(self) -> dict[str, Service]:
        """Services whose containers can run beside their successors: the owner's, unless they say otherwise."""
        return {name: each for name, each in self.lasting.items() if each.own and not each.restarts}

    @property
    def restarting(self) -> dict[str, Service]:
        """The owner's services that are stopped before their successors start."""
        return {name: each for name, each in self.lasting.items() if each.own and each.restarts}

    @property
    def migrations(self) -> list[str]:
        """Jobs that must have ended before a rollout."""
        return [name for name, each in self.services.items() if each.job == labels.MIGRATION]

    @property
    def scheduled(self) -> dict[str, Service]:
        """Jobs that the scheduler starts at their times."""
        return {name: each for name, each in self.services.items() if each.job == labels.SCHEDULED and each.replicas}

    @property
    def foundation(self) -> dict[str, Service]:
        """Services that must be healthy before migrations: the data tier."""
        return {name: each for name, each in self.lasting.items() if each.data}

    @property
    def clients(self) -> dict[str, Service]:
        """Services that may hold connections, caches or files of the data tier, and so must not run while its data is
        replaced: the owner's, and whatever else shares a network with it; and the scheduler, which would start jobs.
        What only watches is none, and neither is what says that it may run (`ops.restore: running`)."""
        foundation = self.foundation
        reach = {network for each in foundation.values() for network in each.networks}
        return {
            name: each
            for name, each in self.lasting.items()
            if name not in foundation
            and not each.monitoring
            and each.labels.get(labels.RESTORE) != labels.RUNNING
            and (each.own or name == labels.SCHEDULER or reach.intersection(each.networks))
        }


def load(env: Environment, all_profiles: bool = False) -> Stack:
    """The declared stack. Raises OpsError when it does not resolve.

    all_profiles: with the services that are switched off.
    """
    done = engine.compose(env, "config", "--format", "json", all_profiles=all_profiles, check=False)
    if not done.ok:
        raise unresolved(env, done)
    return parse(done.json())


_VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?::?[-?][^{}]*)?\}|\$(?P<bare>\w+)")


def replica_settings(env: Environment) -> dict[str, str]:
    """The setting that says how many containers a service has, by service; only where it is one: `deploy.replicas`
    (or `scale`) that is a variable and nothing else."""
    done = engine.compose(env, "config", "--no-interpolate", "--format", "json", check=False)
    if not done.ok:
        raise unresolved(env, done)
    found = {}
    for name, entry in (done.json().get("services") or {}).items():
        declared = entry.get("scale", (entry.get("deploy") or {}).get("replicas"))
        if match := _VARIABLE.fullmatch(str(declared)):
            found[name] = match["braced"] or match["bare"]
    return found


def hashes(env: Environment, document: Path | None = None) -> dict[str, str]:
    """Compose's own hash of every active service's configuration, as it labels containers with. Absolute paths are a
    part of it. document: a resolved configuration instead of the Compose files."""
    done = engine.compose(env, "config", "--hash", "*", document=document, check=False)
    if not done.ok:
        raise unresolved(env, done)
    return dict(line.split() for line in done.stdout.splitlines())


def unresolved(env: Environment, done: engine.Completed) -> OpsError:
    """The error for a configuration that Compose refuses."""
    if known := engine.explain(done.stderr):
        return known
    reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.code}"
    if match := re.search(r"required variable (\w+) is missing a value", reason):
        return OpsError(
            f"{relative(env.env_file)}: {match[1]} is not set, and the Compose files need it.",
            "Add it; the same file of another environment shows what it looks like.",
            USAGE,
        )
    return OpsError(f"The Compose files do not resolve: {reason}", "See: docker compose config", USAGE)


def parse(document: Mapping[str, Any]) -> Stack:
    """A Stack from the JSON of `docker compose config`."""
    sources = {
        kind: {name: entry["file"] for name, entry in (document.get(kind) or {}).items() if "file" in entry}
        for kind in ("secrets", "configs")
    }
    services = {name: _service(name, entry, sources) for name, entry in (document.get("services") or {}).items()}
    return Stack(document["name"], services, document)


def _service(name: str, entry: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]) -> Service:
    deploy = entry.get("deploy") or {}
    resources = deploy.get("resources") or {}
    health = entry.get("healthcheck") or {}
    said = {key: str(value) for key, value in (entry.get("labels") or {}).items()}
    volumes = entry.get("volumes") or []
    # Not 1 by default only when given: a replica count of 0 is a service that is switched off.
    replicas = entry.get("scale", deploy.get("replicas"))
    return Service(
        name=name,
        image=entry.get("image", ""),
        replicas=1 if replicas is None else int(replicas),
        built="build" in entry,
        labels=said,
        one_shot=entry.get("restart", "") == "no" or not said.keys().isdisjoint({labels.JOB, labels.SCHEDULE}),
        profiles=tuple(entry.get("profiles") or ()),
        depends_on=tuple(entry.get("depends_on") or ()),
        memory_limit=_memory(resources, "limits") or int(entry.get("mem_limit") or 0),
        memory_reserved=_memory(resources, "reservations") or int(entry.get("mem_reservation") or 0),
        ports=tuple(_ports(entry.get("ports") or ())),
        mounts=(*_binds(volumes), *_mounted("secrets", entry, sources), *_mounted("configs", entry, sources)),
        networks=tuple(entry.get("networks") or ()),
        volumes=tuple(volume["source"] for volume in volumes if volume["type"] == "volume" and "source" in volume),
        has_health=bool(health) and not health.get("disable") and health.get("test") != ["NONE"],
        probe_seconds=seconds(health.get("interval", "30s")) + seconds(health.get("timeout", "30s")) if health else 0,
    )


def _memory(resources: Mapping[str, Any], kind: str) -> int:
    return int((resources.get(kind) or {}).get("memory") or 0)


def _ports(entries: Iterable[Mapping[str, Any]]) -> Iterable[Port]:
    for entry in entries:
        published = str(entry.get("published", ""))
        if published.isdigit():
            yield Port(entry.get("host_ip", ""), int(published), entry.get("protocol", "tcp"))


def _binds(volumes: Iterable[Mapping[str, Any]]) -> Iterable[Mount]:
    return (Mount(Path(volume["source"]), volume["target"]) for volume in volumes if volume["type"] == "bind")


def _mounted(kind: str, entry: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]) -> Iterable[Mount]:
    for each in entry.get(kind) or ():
        if each["source"] in sources[kind]:
            yield Mount(Path(sources[kind][each["source"]]), each.get("target", ""))


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}


def seconds(text: str) -> float:
    """Seconds of a Compose duration: "1m30s" -> 90."""
    return sum(float(count) * _UNITS[unit] for count, unit in re.findall(r"([\d.]+)(ms|us|ns|h|m|s)", text))
