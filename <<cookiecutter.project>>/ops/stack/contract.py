"""What a service must say so that the stack can run it, checked on the resolved Compose files before anything changes.

Each mistake says which service and label it is about, and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ops.base.errors import USAGE, OpsError
from ops.scheduler.schedule import ScheduleError
from ops.stack import labels, pools
from ops.stack.model import Port, Service, Stack


class Problem(NamedTuple):
    """One mistake in the declaration, and what to write instead."""

    message: str
    remedy: str


def refuse(stack: Stack, cluster: bool = False) -> None:
    """Raise OpsError (USAGE) that names every mistake. cluster: as `problems`."""
    found = list(problems(stack, cluster))
    if len(found) == 1:
        raise OpsError(f"The Compose files: {found[0].message}", found[0].remedy, USAGE)
    if found:
        listed = "\n".join(f"  {each.message} {each.remedy}" for each in found)
        raise OpsError(f"The Compose files have {len(found)} mistakes:\n{listed}", "Correct them.", USAGE)


def problems(stack: Stack, cluster: bool = False) -> Iterator[Problem]:
    """Every mistake. cluster: it runs on Kubernetes, where CronJobs take the place of the scheduler, and policies let a
    service out to what its variables name."""
    entries: Mapping[str, Mapping[str, Any]] = stack.document.get("services") or {}
    known = _names(stack)
    for name, service in stack.services.items():
        entry = entries.get(name, {})
        yield from _unknown(service)
        yield from _forms(service)
        yield from _job(service, entry)
        yield from _schedule(service)
        if service.own:
            yield from _name(service)
            yield from _addresses(service, entry, known)
            yield from () if cluster else _way_out(service, entry, stack)
        if service.own and not service.one_shot:
            yield from _ready(service)
            yield from _replacement(service)
            yield from _restart(service, entry)
    yield from _twins(stack)
    yield from _managed(stack)
    yield from _ports(stack)
    if not cluster:
        yield from _no_scheduler(stack)
    yield from _unsaved(stack)
    yield from _hosts(stack)


# It becomes a host name, an upstream of nginx, a backend of HAProxy and a part of images' names. A dot would let
# `shop.serving` be both a service and the name that leads to another one.
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


def _name(service: Service) -> Iterator[Problem]:
    if not _NAME.fullmatch(service.name):
        yield Problem(
            f'"{service.name}" cannot be the name of a service.',
            "Use up to 63 characters of a-z, 0-9, - and _, with a letter or a digit at both ends.",
        )
    elif service.name in labels.RESERVED:
        yield Problem(
            f'A service cannot be called "{service.name}": nginx or HAProxy uses that name.',
            f"Choose another, such as {service.name}-service. Reserved: {', '.join(sorted(labels.RESERVED))}.",
        )


def _twins(stack: Stack) -> Iterator[Problem]:
    """In a network, a name leads to one service: Docker would send every second request to the other one."""
    entries: Mapping[str, Mapping[str, Any]] = stack.document.get("services") or {}
    holders: dict[tuple[str, str], str] = {}
    for name, entry in entries.items():
        for network in entry.get("networks") or {}:
            holders[network, name] = name
    for name, entry in entries.items():
        for network, joined in (entry.get("networks") or {}).items():
            for alias in (joined or {}).get("aliases") or ():
                other = holders.setdefault((network, alias), name)
                if other != name and (stack.services[name].own or stack.services[other].own):
                    yield Problem(
                        f"{name} and {other} both have the name {alias} in the network {network}.",
                        "Give each a name of its own: rename the service, or remove the alias.",
                    )


# Variables of services that say where the data tier is: host[:port], separated by commas; with the usual port.
ADDRESSES = {"DATABASE_HOSTS": 5432, "REDIS_HOST": 6379, "REDIS_SENTINELS": 26379, "RABBITMQ_HOSTS": 5672}


def _names(stack: Stack) -> frozenset[str]:
    """Every name under which a container of the stack can be reached."""
    found = {*stack.services}
    for entry in (stack.document.get("services") or {}).values():
        found.update(filter(None, (entry.get("hostname"), entry.get("container_name"))))
        for joined in (entry.get("networks") or {}).values():
            found.update((joined or {}).get("aliases") or ())
    return frozenset(found)


def _addresses(service: Service, entry: Mapping[str, Any], known: frozenset[str]) -> Iterator[Problem]:
    """A host of another machine has a dot in its name; one without is a container, and must exist."""
    environment = entry.get("environment") or {}
    extra = {each.partition("=")[0].partition(":")[0] for each in entry.get("extra_hosts") or ()}
    for variable in ADDRESSES:
        hosts = (each.strip().partition(":")[0] for each in str(environment.get(variable) or "").split(","))
        if gone := [each for each in hosts if each and "." not in each and each not in known | extra]:
            yield Problem(
                f"{variable} of {service.name} names {', '.join(gone)}, and no service is called that.",
                f"Correct {variable} in the .env file, or add the Compose file that has them to COMPOSE_FILE.",
            )


def _way_out(service: Service, entry: Mapping[str, Any], stack: Stack) -> Iterator[Problem]:
    """What uses a server outside must be able to reach it, and know how to protect the connection."""
    outside = outside_hosts(entry, "DATABASE_HOSTS")
    if not outside:
        return
    networks: Mapping[str, Mapping[str, Any]] = stack.document.get("networks") or {}
    joined = entry.get("networks") or {}
    if labels.POSTGRES_CLIENT in stack.services:
        ready = labels.MANAGED in joined
    else:
        ready = "network_mode" in entry or any(not (networks.get(each) or {}).get("internal") for each in joined)
    if not ready:
        yield Problem(
            f"{service.name} uses PostgreSQL at {', '.join(outside)}, outside of the stack, and has no way there.",
            f"In {labels.CLIENTS_FILE}, under services:, add {service.name}: *client. COMPOSE_FILE names that file, and"
            f" {labels.MANAGED_FILE}.",
        )


def outside_hosts(entry: Mapping[str, Any], variable: str) -> list[str]:
    """The hosts of a variable of ADDRESSES that are outside of the stack, as it writes them: their names have a dot."""
    named = str((entry.get("environment") or {}).get(variable) or "").split(",")
    return [each for each in map(str.strip, named) if "." in each.partition(":")[0]]


def _managed(stack: Stack) -> Iterator[Problem]:
    if labels.POSTGRES_CLIENT not in stack.services:
        return
    entries: Mapping[str, Mapping[str, Any]] = stack.document.get("services") or {}
    if "postgres-primary" in entries:
        yield Problem(
            f"COMPOSE_FILE names {labels.MANAGED_FILE}, and a PostgreSQL of the stack as well.",
            "Take docker-compose.postgres.yml and docker-compose.postgres-failover.yml out of it. The volumes stay.",
        )
    for name, service in stack.services.items():
        inside = str((entries[name].get("environment") or {}).get("DATABASE_HOSTS") or "")
        if service.own and inside and not outside_hosts(entries[name], "DATABASE_HOSTS"):
            yield Problem(
                f"COMPOSE_FILE names {labels.MANAGED_FILE}, and DATABASE_HOSTS of {name} is {inside}.",
                "Set DATABASE_HOSTS in the .env file to the server outside: db.example.com:5432.",
            )


def _hosts(stack: Stack) -> Iterator[Problem]:
    try:
        found = pools.declared(stack)
    except OpsError as error:
        yield Problem(error.message.removeprefix("The Compose files: "), error.remedy)
        return
    entry: Mapping[str, Any] = (stack.document.get("services") or {}).get("nginx") or {}
    domain = str((entry.get("environment") or {}).get("DOMAIN", "")).lower()  # as nginx is told it
    for pool in found.values():
        if pool.host and pool.host == domain:
            yield Problem(
                f'label {labels.HOST} of {pool.service} is "{pool.host}", which is DOMAIN.',
                f"Remove it: without it the route is on DOMAIN. Or give {pool.service} another name.",
            )


def _ports(stack: Stack) -> Iterator[Problem]:
    """A port of the host is one service's: the engine would notice when the second one starts, in the middle of a
    deploy."""
    taken: list[tuple[Port, str]] = []
    for name, service in stack.services.items():
        for port in service.ports:
            for other, holder in taken:
                if holder != name and port.clashes(other):
                    yield Problem(
                        f"{name} and {holder} both publish port {port.number} of the host.",
                        "Publish another one, or none: what takes requests through nginx needs no port of the host.",
                    )
            taken.append((port, name))


def _unknown(service: Service) -> Iterator[Problem]:
    for label in service.labels:
        if label.startswith(labels.PREFIX) and label not in labels.KNOWN:
            meant = labels.suggestion(label)
            yield Problem(
                f"{service.name} has the label {label}, which does not exist.",
                f"Write {meant}." if meant else 'docs/architecture.md, "Labels", lists those that do.',
            )


# Labels of a form, which is told in words; others are read, and refused, where they are used.
_FORMS = {
    labels.SMOKE: (r"/\S*( [1-5]\d\d)?", "a path, and the status to answer with if it is not 2xx or 3xx: /me 401"),
    labels.LIVE: (r"\d{0,5}/\S*", "a path, or a port and a path: 8000/health/live"),
    "ops.database-connections": (r"\d{1,5}", "a whole number"),
    labels.ROLLOUT: (f"{labels.ROLLING}|{labels.RESTART}", f"{labels.ROLLING} or {labels.RESTART}"),
    # up to a day or so: a rollout holds the environment's lock as long
    labels.DRAIN: (r"\d{1,5}", "a number of seconds, up to 99999"),
}
# What is asked on the port of requests, unless it names another one.
_ASKED = (labels.ROUTE, labels.HOST, labels.INTERNAL, labels.SMOKE, labels.AFFINITY, labels.DRAIN)


def _forms(service: Service) -> Iterator[Problem]:
    for label, (pattern, form) in _FORMS.items():
        said = service.labels.get(label)
        if said is not None and not re.fullmatch(pattern, said):
            yield Problem(f'label {label} of {service.name} is "{said}"; it must be {form}.', "Correct it.")
    asked = [label for label in _ASKED if label in service.labels]
    if service.labels.get(labels.LIVE, "").startswith("/"):
        asked.append(labels.LIVE)
    for label in asked:
        if labels.PORT not in service.labels:
            yield Problem(
                f"{service.name} has the label {label}, but no {labels.PORT}, so it gets no requests.",
                f"Add {labels.PORT}: the port that it listens on.",
            )


def _ready(service: Service) -> Iterator[Problem]:
    said, asked = service.labels.get(labels.READY, ""), labels.PORT in service.labels
    if not said and not service.has_health:
        remedies = (
            f", or the label {labels.READY}: /path (answers 200 when ready) or {labels.READY}: tcp" if asked else ""
        )
        yield Problem(
            f"{service.name} has no health check, so nobody can tell when it is ready.",
            f"Add a healthcheck to it{remedies}. Where its image has one: {labels.READY}: {pools.HEALTHCHECK}.",
        )
    if said and said != pools.HEALTHCHECK and not asked:
        yield Problem(
            f'{service.name} has the label {labels.READY}: "{said}", but no {labels.PORT} to ask at.',
            f"Add {labels.PORT}, or a healthcheck in place of the label.",
        )


def _replacement(service: Service) -> Iterator[Problem]:
    if service.volumes and not service.restarts and labels.ROLLOUT not in service.labels:
        volumes = ", ".join(service.volumes)
        yield Problem(
            f"{service.name} has a volume ({volumes}) and does not say whether two of its containers may use that at"
            " once, as they do in a rollout.",
            f"Add the label {labels.ROLLOUT}: {labels.RESTART} when they must not (it is away for a moment then), or"
            f" {labels.ROLLOUT}: {labels.ROLLING} when they can.",
        )


def _restart(service: Service, entry: Mapping[str, Any]) -> Iterator[Problem]:
    # It is also how a rollout marks a container that is not proven yet.
    if not entry.get("restart"):
        yield Problem(
            f"{service.name} has no restart policy: it would stay down after a crash, or when the machine restarts.",
            "Add restart: unless-stopped, or ops.job if it is to run to its end.",
        )


def _job(service: Service, entry: Mapping[str, Any]) -> Iterator[Problem]:
    said = service.labels.get(labels.JOB)
    if said is not None and said not in {labels.MIGRATION, labels.MANUAL}:
        yield Problem(
            f'label {labels.JOB} of {service.name} is "{said}".',
            f"Write {labels.MIGRATION} (runs before every rollout that changes it) or {labels.MANUAL} (runs by `invoke"
            " run`).",
        )
    elif said is not None and labels.SCHEDULE in service.labels:
        yield Problem(
            f"{service.name} has both {labels.JOB} and {labels.SCHEDULE}.",
            f"Keep one: a scheduled job can be run by `invoke run {service.name}` as well.",
        )
    if service.job and (policy := entry.get("restart", "no")) != "no":
        yield Problem(
            f"{service.name} is a job and has restart: {policy}, so it would begin again when it has ended.",
            'Write restart: "no".',
        )
    if service.own and service.one_shot and not service.job and said is None:
        yield Problem(
            f'{service.name} has restart: "no", so it runs to its end, but it does not say when.',
            f"Give it the label {labels.JOB}: {labels.MIGRATION} (before a rollout), {labels.JOB}: {labels.MANUAL} (by"
            f' `invoke run {service.name}`) or {labels.SCHEDULE}: "0 3 * * *"; or restart: unless-stopped when it is to'
            " keep running.",
        )


def _schedule(service: Service) -> Iterator[Problem]:
    try:
        found = service.schedule
    except ScheduleError as error:
        yield Problem(f"{service.name}: {error.problem}.", error.remedy)
        return
    if found and service.replicas > 1:
        yield Problem(f"{service.name} is a scheduled job with {service.replicas} replicas.", "It can have one only.")


def _no_scheduler(stack: Stack) -> Iterator[Problem]:
    if stack.scheduled and labels.SCHEDULER not in stack.services:
        names = ", ".join(stack.scheduled)
        yield Problem(
            f"{names} would never run: there is no scheduler.",
            "Add :docker-compose.scheduler.yml to COMPOSE_FILE in the .env file.",
        )


def _unsaved(stack: Stack) -> Iterator[Problem]:
    """A volume that a label wants saved, and that the service which takes backups does not see."""
    entries: Mapping[str, Mapping[str, Any]] = stack.document.get("services") or {}
    taker = entries.get(labels.BACKUPS)
    if taker is None:
        return
    seen = {each.get("source"): each for each in taker.get("volumes") or () if each["type"] == "volume"}
    for name, service in stack.services.items():
        for volume in filter(None, (each.strip() for each in service.labels.get("ops.backup", "").split(","))):
            mount = seen.get(volume, {})
            if mount.get("target") != f"{labels.VOLUMES}/{volume}" or not mount.get("read_only"):
                yield Problem(
                    f"{name} has the label ops.backup: {volume}, and {labels.BACKUPS} does not mount that volume.",
                    f"In docker-compose.backup-volumes.yml, under services: {labels.BACKUPS}: volumes:, add"
                    f" - {volume}:{labels.VOLUMES}/{volume}:ro",
                )
