"""The health of the pools: which containers HAProxy chooses for requests, and why it does not choose the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ops.engine import Container
from ops.parts.haproxy import pool
from ops.parts.haproxy.pool import Server
from ops.parts.probes import Check, Probe, Seen, Status
from ops.stack import pools

TITLE = "Pools"


def probes(seen: Seen) -> Iterator[Probe]:
    """Ask HAProxy about every service that takes requests."""
    if haproxy := pool.find(seen.containers):
        yield Probe("pool", pool.SERVICE, lambda: _pools(seen, haproxy))


def _pools(seen: Seen, haproxy: Container) -> Iterator[Check]:
    network = pools.network(seen.declared)
    servers = pool.servers(haproxy)
    for name in pools.declared(seen.declared):
        yield judge([each for each in servers if each.pool == name], name, named(seen.running(name), network))


def named(containers: Iterable[Container], network: str) -> dict[str, str]:
    """Containers for people ("web-1") by their addresses in a network; "" for one that is not in it."""
    return {each.addresses.get(network, ""): f"{each.service}-{each.number}" for each in containers}


def judge(servers: Collection[Server], service: str, containers: dict[str, str]) -> Check:
    """How many of a service's containers get requests, and what is the matter with the others.

    containers: those that run, as `named` gives them.
    """
    mine = [each for each in servers if each.address in containers]
    chosen = [each for each in mine if each.chosen]
    reasons = [f"{containers[each.address]} {reason}" for each in mine if (reason := why(each))]
    known = {each.address for each in mine}
    reasons += [f"{name} is not seen" for address, name in containers.items() if address not in known]
    # With none chosen each gets requests, so the site serves if their checks pass.
    who = f"{len(chosen)} of {len(containers)} get requests" if chosen else "none is chosen, so each gets requests"
    detail = f"{who}, {sum(each.open for each in mine)} open now"
    settled = len(mine) == len(containers) and all(each.chosen or each.recovering for each in mine)
    status: Status = "ok" if settled else "warn" if any(each.well for each in mine) else "fail"
    return Check("pool", service, status, "; ".join([detail, *reasons]))


def why(server: Server) -> str:
    """Why a server gets no requests, in words; "" when it does."""
    if server.chosen:
        return ""
    if server.ejected:
        return "is taken out: it answers errors although its health check is fine"
    if server.recovering:
        return "is ready, and will be chosen in a few seconds"
    if server.state == "DOWN":
        return f"is not ready ({server.check} {server.check_code})".replace(" )", ")")
    if server.state == "DRAIN":
        return "was taken out by a rollout that was interrupted; the next deploy takes it back"
    return f"is {server.state}"
