"""nginx at the edge: who gets the requests, changed without losing one.

A reload starts new workers with the new peers; the old ones finish what is open, and answer on idle kept-alive
connections for `keepalive_min_timeout` (infrastructure/nginx/http.conf), still with the old peers. So a peer that was
taken out may be stopped only when the last old worker is gone: that wait is the drain. Internal hops go through the
same nginx, so they are drained with it.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops import engine
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.engine import Container

SERVICE = "nginx"
CONFIGURATION = "/etc/nginx/env/nginx.conf"
# How it writes the peers of a service, and where to: infrastructure/nginx/peers.sh.
_PEERS_SCRIPT = "/etc/nginx/stack/peers.sh"
_PEERS = "/run/nginx/peers"
# While this file is there, nginx answers the public with 503 (servers.conf). It is in memory: a restart opens again.
_STOPPING = "/run/nginx/stopping"
# The services' own port, as in peers.sh.
PORT = 8000
# nginx takes a reload within milliseconds; on a busy machine a second or two.
RELOAD_SECONDS = 20.0
# Longer than the longest worker_shutdown_timeout (60 s in prod): then nginx itself cuts what is still open.
DRAIN_SECONDS = 75.0
_PAUSE = 0.2
# While old workers finish, for seconds: a look costs 40 ms of a processor that has requests to serve.
_DRAIN_PAUSE = 0.5
# For an answer to a smoke request: as long as a health check may take.
_SMOKE_SECONDS = 5
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}
_LEAVING = "worker process is shutting down"


@dataclass(frozen=True)
class Worker:
    """A worker process. leaving: it takes no new connections, and ends with its last one."""

    pid: int
    leaving: bool


def find(containers: Sequence[Container]) -> Container | None:
    """The running nginx among containers. One that keeps restarting serves nobody and cannot be asked anything."""
    return next((each for each in containers if each.service == SERVICE and each.running and not each.looping), None)


def peers(nginx: Container) -> dict[str, list[str]]:
    """Addresses that each routed service is pinned to; an empty list where its name is used."""
    script = f'for file in {_PEERS}/*.conf; do echo "= $(basename "$file" .conf)"; cat "$file"; done'
    return parse_peers(engine.exec_(nginx.id, ["sh", "-c", script]).stdout)


def parse_peers(text: str) -> dict[str, list[str]]:
    """Services and pinned addresses from the peers files, one after the other, each behind a line "= SERVICE"."""
    found: dict[str, list[str]] = {}
    for words in (line.split() for line in text.splitlines()):
        if words[:1] == ["="]:
            found[words[1]] = []
        elif words[:1] == ["server"] and "resolve" not in words:
            found[[*found][-1]].append(words[1].removesuffix(f":{PORT}"))
    return found


def point(nginx: Container, wanted: Mapping[str, Sequence[str]]) -> None:
    """Send the requests for some services to these addresses (none: to whoever has the service's name), and reload.

    It reloads also when that is written already: a killed rollout may not have come to it. Raises OpsError when nginx
    refuses; it then works with what it had.
    """
    renew(nginx)
    before = peers(nginx)
    routed = {service: addresses for service, addresses in wanted.items() if service in before}
    if routed:
        _take(nginx, _writing(routed), _writing({service: before[service] for service in routed}))


def release(nginx: Container) -> None:
    """Send the requests for every service to whoever has its name, as it is between two rollouts."""
    renew(nginx)
    if pinned := {service: addresses for service, addresses in peers(nginx).items() if addresses}:
        _take(nginx, _writing(dict.fromkeys(pinned, ())), _writing(pinned))


def _writing(wanted: Mapping[str, Sequence[str]]) -> str:
    """The lines of a script in nginx's container that write peers."""
    lines = (shlex.join(["sh", _PEERS_SCRIPT, service, *addresses]) for service, addresses in wanted.items())
    return "".join(f"{line}\n" for line in lines)


def reload(nginx: Container) -> None:
    """Let nginx take its changed configuration without dropping a connection; returns when new workers serve.

    Raises OpsError when the configuration is wrong: nginx then keeps working with the old one.
    """
    renew(nginx)
    _take(nginx, "", "")


def renew(nginx: Container) -> None:
    """Restart nginx when a folder that it has mounted was replaced as a whole; a second or two without an answer.

    A mount stays with the old folder, moved or deleted, whatever is put in its place: a reload would not see that.
    """
    for container in engine.inspect([nginx.id]):
        mounts = [mount for mount in container["Mounts"] if mount["Type"] == "bind"]
        if any(_replaced(nginx, Path(mount["Source"]), mount["Destination"]) for mount in mounts):
            engine.docker("restart", nginx.id)
            if not until(lambda: bool(workers(nginx)), RELOAD_SECONDS, _PAUSE):
                raise OpsError("nginx does not start again.", "See why: invoke logs --service nginx")


# How many names the folder has (a deleted one has none), then the SHA-256 of each file that nginx can read.
_LOOK = 'cd "$1" || { echo 0; exit; }; stat -c %h . && find -L . -type f -exec sha256sum {} + || true'


def _replaced(nginx: Container, folder: Path, mounted: str) -> bool:
    """Whether the container sees another folder than the one that is there now: a deleted one, or other content.

    Where there is none now, what it sees is all it has: it would not start again. Where another user's folder is closed
    to this one, there is nothing to compare with.
    """
    try:
        if not folder.is_dir():
            return False
    except PermissionError:
        return False
    done = engine.exec_(nginx.id, ["sh", "-c", _LOOK, "sh", mounted])
    names, *rows = done.stdout.splitlines()
    return names == "0" or any(_differs(folder / path, digest) for digest, path in (row.split("  ", 1) for row in rows))


def _differs(file: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() != digest
    except PermissionError:
        return False  # not ours to read, so not ours to judge
    except OSError:
        return True


def _take(nginx: Container, change: str, undo: str) -> None:
    """Change the configuration and reload, or undo it. change, undo: lines of a script in nginx's container.

    One script for all of it: the engine lets it come to its end although the command that began it is killed, so what
    is written is what nginx works with.
    """
    script = f"{change}if nginx -t -q -c {CONFIGURATION}; then kill -HUP 1; else\n{undo}exit 1; fi"
    before = {worker.pid for worker in workers(nginx) if not worker.leaving}
    done = engine.exec_(nginx.id, ["sh", "-ec", script], check=False)
    if not done.ok:
        lines = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines())
        raise OpsError(
            f"nginx refuses its new configuration and keeps the old one:\n{lines}", "Fix it and deploy again."
        )

    # The signal comes back at once; the change has happened when no former worker takes connections any more.
    def changed() -> bool:
        now = {worker.pid for worker in workers(nginx) if not worker.leaving}
        return bool(now) and not now & before

    if not until(changed, RELOAD_SECONDS, _PAUSE):
        raise OpsError(
            f"nginx did not take its new configuration within {RELOAD_SECONDS:.0f} s; it works with the old one.",
            "See why: invoke logs --service nginx",
        )


def close(nginx: Container) -> None:
    """Take no more requests from outside, and wait until those that are open are done. Lasts until nginx restarts."""
    renew(nginx)
    engine.exec_(nginx.id, ["touch", _STOPPING])
    # The flag refuses what is new; the reload tells what is old from it, so that its end can be waited for.
    _take(nginx, "", "")
    drain(nginx)


def workers(nginx: Container) -> list[Worker]:
    """The worker processes of nginx at this moment."""
    return parse_workers(engine.docker("top", nginx.id, "-eo", "pid,args").stdout)


def parse_workers(text: str) -> list[Worker]:
    """Workers from the output of `docker top`: process id and command."""
    rows = (line.split(maxsplit=1) for line in text.splitlines()[1:])
    return [Worker(int(pid), _LEAVING in title) for pid, title in rows if "worker process" in title]


def leaving(nginx: Container) -> int:
    """How many old workers still have connections."""
    return sum(worker.leaving for worker in workers(nginx))


def settle(nginx: Container) -> None:
    """Wait until no old worker takes a further request: until the last one is gone, or its connections have been idle
    for longer than it answers on them. What is open then may go on."""
    drain(nginx, last_request_seconds(nginx))


def last_request_seconds(nginx: Container) -> float:
    """How long after a reload an old worker still answers on an idle connection, as nginx itself is told. Raises
    OpsError when that is written nowhere: requests would be lost without a word."""
    said = engine.exec_(nginx.id, ["nginx", "-T", "-q", "-c", CONFIGURATION], check=False)
    found = parse_last_request(said.stdout)
    if found is None:
        reason = said.stderr.strip().splitlines()[-1:] or ["keepalive_min_timeout is not set"]
        raise OpsError(
            f"nginx does not say how long its old workers answer on idle connections: {reason[0]}",
            "Set keepalive_min_timeout in infrastructure/nginx/http.conf.",
        )
    return found


def parse_last_request(text: str) -> float | None:
    """The longest keepalive_min_timeout of a configuration, in seconds; None when it has none."""
    found = re.findall(r"^\s*keepalive_min_timeout\s+(\d+)(ms|s|m|)\s*;", text, re.MULTILINE)
    return max((float(count) * _UNITS[unit] for count, unit in found), default=None)


def drain(nginx: Container, seconds: float = DRAIN_SECONDS, watch: Callable[[], None] = lambda: None) -> bool:
    """Wait until the last old worker is gone, but no longer than that; whether it is. watch: called at every look."""

    def gone() -> bool:
        if not leaving(nginx):
            return True
        watch()
        return False

    return until(gone, seconds, _DRAIN_PAUSE)


@dataclass(frozen=True)
class Smoke:
    """A request that a new container must answer before it gets others. status: the one wanted (0: any 2xx or 3xx)."""

    path: str
    status: int = 0

    @classmethod
    def parse(cls, text: str) -> Smoke | None:
        """From the label `ops.smoke` of a service: "/login", or "/v1/auth/me 401"; None when it has none."""
        path, _, status = text.strip().partition(" ")
        return cls(path, int(status or 0)) if path else None

    def accepts(self, status: int) -> bool:
        """Whether an answer with this status is the right one."""
        return status == self.status if self.status else 200 <= status < 400


def ask(nginx: Container, address: str, smoke: Smoke) -> str:
    """Send a smoke request from nginx, as it would pass on a user's; "" when its answer is right, else what is not."""
    done = engine.exec_(
        nginx.id,
        [
            *("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(_SMOKE_SECONDS)),
            *("--write-out", "\n%{http_code}", f"http://{address}:{PORT}{smoke.path}"),
        ],
        check=False,
    )
    body, _, status = done.stdout.rpartition("\n")
    if not done.ok:
        return f"gave no answer to its smoke request {smoke.path}: {done.stderr.strip()}"
    if not smoke.accepts(int(status)):
        wanted = smoke.status or "2xx or 3xx"
        return f"answered its smoke request {smoke.path} with {status} instead of {wanted}: {body.strip()[:200]}"
    return ""
