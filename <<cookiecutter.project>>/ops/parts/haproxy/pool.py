"""HAProxy between nginx and the services: which containers get requests, changed without a reload.

It finds containers by the name that they have in the network `serving`, and chooses those that say they are ready. So
a new one gets requests when it is let into that network, and one that is to go is taken out of the choice first.
What HAProxy was told it forgets when it restarts; nothing is written down anywhere else that could be wrong.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base.errors import NOT_READY, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import mounts, reloads
from ops.stack import labels, pools
from ops.stack.pools import NETWORK

SERVICE = "haproxy"
_FILES = "-f /etc/haproxy/stack/haproxy.cfg -f /etc/haproxy/routes"
CHECK = f"haproxy -c {_FILES}"
# It looks names up four times a second and asks a new container at once; on a busy machine that takes a few seconds.
CHOSEN_SECONDS = 20.0
_PAUSE = 0.1
# Of containers that join or leave the network.
_AT_ONCE = 4
# Its own command line, inside its container. The image has no program for sockets, but bash can open one.
_ASK = 'exec 3<>/dev/tcp/127.0.0.1/9999 || exit; printf "%s\\n" "$1" >&3; cat <&3'
# What `show servers state` says of a server that a command took out: maintenance, drain.
_BY_COMMAND = 1 | 8
# Every server of every pool, and nothing else: `show stat PROXY TYPE SERVER`.
_SERVERS = "show stat -1 4 -1"
# How a pool is called whose containers are not asked whether they are ready (configuration.py).
ANY = ":any"


@dataclass(frozen=True)
class Server:
    """A container as HAProxy sees it. address: in the network `serving`; state: UP, DOWN, DRAIN, MAINT or NOLB; check,
    check_code: what its last check gave, such as L7STS and 503; open: requests that it has or that wait for it; errors,
    requests: since HAProxy started or was reloaded, errors being answers of 500 and above; took_ms: the mean of the
    last thousand answers; ejections: how often it was taken out because of its answers."""

    pool: str
    name: str
    address: str
    state: str
    check: str = ""
    check_code: str = ""
    open: int = 0
    errors: int = 0
    requests: int = 0
    took_ms: float = 0
    ejections: int = 0

    @property
    def chosen(self) -> bool:
        """Whether it gets requests."""
        return self.state == "UP"

    @property
    def well(self) -> bool:
        """It says that it is ready."""
        return self.check in {"HANA", "L7OK", "L4OK"}

    @property
    def ejected(self) -> bool:
        """Taken out because of its answers, although it says that it is ready."""
        return self.state == "DOWN" and self.well and self.ejections > 0

    @property
    def recovering(self) -> bool:
        """It was not ready, and has yet to say so for a while before it is chosen again."""
        return self.state == "DOWN" and self.well and not self.ejections


def find(containers: Iterable[Container]) -> Container | None:
    """The running HAProxy among containers. One that keeps restarting cannot be told anything."""
    return next((each for each in containers if each.service == SERVICE and each.running and not each.looping), None)


def servers(haproxy: Container) -> list[Server]:
    """The servers of every pool that have an address."""
    return parse(_ask(haproxy, _SERVERS))


def parse(text: str) -> list[Server]:
    """Servers from the CSV of `show stat`. Slots that no container has are left out."""
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    return [_server(row) for row in rows if (row.get("addr") or "").count(".") == 3]


def _server(row: Mapping[str, Any]) -> Server:
    return Server(
        row["pxname"],
        row["svname"],
        row["addr"].rpartition(":")[0],
        row["status"].split()[0],
        row["check_status"].lstrip("* "),
        row["check_code"],
        int(row["scur"] or 0) + int(row["qcur"] or 0),
        int(row["hrsp_5xx"] or 0),
        int(row["stot"] or 0),
        float(row["ttime"] or 0),
        int(row["hanafail"] or 0),
    )


def reload(haproxy: Container) -> None:
    """Let HAProxy take its changed configuration; returns when the new process alone gets requests. The former one
    finishes what it has. Raises OpsError when the configuration is wrong: HAProxy then keeps working with the old one.

    The former process also answers what nginx sends on connections that were idle, and does not hear what the new one
    is told. So it must have none of them any more when the first container is taken out.
    """
    if mounts.replaced(haproxy):
        engine.docker("restart", haproxy.id)
        return
    before = _process(haproxy)
    reloads.take(haproxy, "HAProxy", f"{CHECK} && kill -USR2 1", lambda: _process(haproxy) not in {"", before})
    time.sleep(pools.IDLE_SECONDS)


def _process(haproxy: Container) -> str:
    """The number of the process that serves, "" while none does."""
    done = engine.exec_(haproxy.id, ["bash", "-c", _ASK, "bash", "show info"], check=False)
    return next((line.removeprefix("Pid: ") for line in done.stdout.splitlines() if line.startswith("Pid: ")), "")


def keep_out(containers: Iterable[Container], network: str) -> None:
    """Take containers that have not started yet out of the network of those that get requests."""
    with engine.pool(_AT_ONCE) as work:
        list(work.map(lambda each: engine.docker("network", "disconnect", network, each.id), containers))


def let_in(
    containers: Iterable[Container], network: str, entries: Mapping[str, Mapping[str, Any]], canary: bool = False
) -> None:
    """Let containers into the network of those that get requests, under the names that Compose would have given them.

    entries: services as Compose describes them. canary: under the name of a canary only. One that is there already
    stays as it is.
    """

    def join(each: Container) -> None:
        declared = (entries[each.service]["networks"][NETWORK] or {}).get("aliases") or ()
        names = (pools.canary(each.service), each.name) if canary else (*declared, each.service, each.name)
        aliases = (part for name in names for part in ("--alias", name))
        done = engine.docker("network", "connect", *aliases, network, each.id, check=False)
        if not done.ok and "already exists in network" not in done.stderr:
            raise engine.failure(done)

    with engine.pool(_AT_ONCE) as work:
        list(work.map(join, containers))


def await_choice(haproxy: Container, wanted: Mapping[str, Collection[str]], seconds: float = CHOSEN_SECONDS) -> None:
    """Return when it chooses all of these addresses, by service. Raises OpsError (NOT_READY) when it does not."""

    def missing() -> dict[str, set[str]]:
        chosen = {(each.pool, each.address) for each in servers(haproxy) if each.chosen}
        found = {name: {each for each in wanted[name] if (name, each) not in chosen} for name in wanted}
        return {name: addresses for name, addresses in found.items() if addresses}

    if late := until(missing, seconds, _PAUSE, accept=lambda late: not late):
        found = [each for each in servers(haproxy) if each.pool in late]
        seen = "\n".join(f"  {describe(each)}" for each in found) or "  nothing"
        # Its checks of the connection itself
        if deaf := sorted({each.pool for each in found if each.check.startswith("L4") and not each.well}):
            seen += f"\nNothing listens on the port that the label {labels.PORT} of {', '.join(deaf)} names."
        raise OpsError(
            f"HAProxy does not choose the new containers of {', '.join(late)}. It sees:\n{seen}",
            f"See why: invoke logs --service {next(iter(late))}",
            NOT_READY,
        )


def describe(server: Server) -> str:
    """A server for a person: "web 172.18.0.4: DOWN, its check gives L7STS 503, 0 open"."""
    check = " ".join(part for part in (server.check, server.check_code) if part)
    return f"{server.pool} {server.address}: {server.state}, its check gives {check or 'nothing'}, {server.open} open"


def take_out(haproxy: Container, addresses: Collection[str]) -> None:
    """Send nothing new to these; requests that are open go on."""
    mine = [each for each in servers(haproxy) if each.address in addresses and each.state != "DRAIN"]
    if mine:
        _ask(haproxy, ";".join(f"set server {each.pool}/{each.name} state drain" for each in mine))


def drain(haproxy: Container, limits: Mapping[str, float]) -> None:
    """Take these out, and wait until no request is open at them or queued for them. limits: how many seconds the
    requests of each address may take at most."""
    take_out(haproxy, limits)
    began = time.monotonic()

    def done() -> bool:
        passed = time.monotonic() - began
        return not any(each.open and passed < limits.get(each.address, 0.0) for each in servers(haproxy))

    until(done, max(limits.values(), default=0.0), _PAUSE)


def reset(haproxy: Container) -> None:
    """Forget who was taken out: between two rollouts, whoever is in the network and ready is chosen.

    An empty slot keeps what it was told, and the next container that gets it would too.
    """
    told = parse_told(_ask(haproxy, "show servers state"))
    if told:
        _ask(haproxy, ";".join(f"set server {name} state ready" for name in told))


def parse_told(text: str) -> list[str]:
    """Servers ("web/s1") that a command took out, from `show servers state`."""
    rows = (line.split() for line in text.splitlines() if line[:1].isdigit())
    return [f"{row[1]}/{row[3]}" for row in rows if len(row) > 6 and int(row[6]) & _BY_COMMAND]


def _ask(haproxy: Container, command: str) -> str:
    done = engine.exec_(haproxy.id, ["bash", "-c", _ASK, "bash", command], check=False)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(
            f"HAProxy does not answer: {engine.reason(done.stderr, f'exit code {done.code}')}",
            f"See why: invoke logs --service {SERVICE}",
        )
    return done.stdout
