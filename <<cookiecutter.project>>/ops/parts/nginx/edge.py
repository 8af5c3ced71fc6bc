"""nginx at the edge: a changed configuration without a lost request, the public door shut, a request as nginx sends it.

A reload starts new workers; the old ones finish what is open, and answer on idle kept-alive connections for
`keepalive_min_timeout` (infrastructure/nginx/http.conf). A rollout needs none: see ops/parts/haproxy/pool.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ops import engine
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import mounts, reloads
from ops.stack import labels
from ops.stack.pools import Pool

SERVICE = "nginx"
CONFIGURATION = "/etc/nginx/env/nginx.conf"
CHECK = f"nginx -t -q -c {CONFIGURATION}"
# While this file is there, nginx answers the public with 503 (servers.conf). It is in memory: a restart opens again.
_STOPPING = "/run/nginx/stopping"
# Longer than the longest worker_shutdown_timeout (60 s in prod): then nginx itself cuts what is still open.
DRAIN_SECONDS = 75.0
# While old workers finish, for seconds: a look costs 40 ms of a processor that has requests to serve.
_DRAIN_PAUSE = 0.5
# For an answer to a smoke request: as long as a health check may take.
_SMOKE_SECONDS = 5
_LEAVING = "worker process is shutting down"


@dataclass(frozen=True)
class Worker:
    """A worker process. leaving: it takes no new connections, and ends with its last one."""

    pid: int
    leaving: bool


def find(containers: Sequence[Container]) -> Container | None:
    """The running nginx among containers. One that keeps restarting serves nobody and cannot be asked anything."""
    return next((each for each in containers if each.service == SERVICE and each.running and not each.looping), None)


def address(container: Container, nginx: Container) -> str:
    """The address under which nginx reaches a container; "" when they share no network."""
    shared = sorted(container.addresses.keys() & nginx.addresses.keys())
    return container.addresses[shared[0]] if shared else ""


def reload(nginx: Container) -> None:
    """Let nginx take its changed configuration without dropping a connection; returns when new workers serve.

    Raises OpsError when the configuration is wrong: nginx then keeps working with the old one.
    """
    renew(nginx)
    before = {worker.pid for worker in workers(nginx) if not worker.leaving}

    # The signal comes back at once; the change has happened when no former worker takes connections any more.
    def changed() -> bool:
        now = {worker.pid for worker in workers(nginx) if not worker.leaving}
        return bool(now) and not now & before

    reloads.take(nginx, "nginx", f"{CHECK} && kill -HUP 1", changed)


def renew(nginx: Container) -> None:
    """Restart nginx when a folder that it has mounted was replaced as a whole; a second or two without an answer."""
    if mounts.replaced(nginx):
        engine.docker("restart", nginx.id)
        if not until(lambda: bool(workers(nginx)), reloads.SECONDS, reloads.PAUSE):
            raise OpsError("nginx does not start again.", "See why: invoke logs --service nginx")


def close(nginx: Container) -> None:
    """Take no more requests from outside, and wait until those that are open are done. Lasts until nginx restarts."""
    engine.exec_(nginx.id, ["touch", _STOPPING])
    # The flag refuses what is new; the reload tells what is old from it, so that its end can be waited for.
    reload(nginx)
    until(lambda: not leaving(nginx), DRAIN_SECONDS, _DRAIN_PAUSE)


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


@dataclass(frozen=True)
class Reply:
    """What came of a request: its status (0: no answer), and whether somebody took the connection."""

    status: int = 0
    connected: bool = False

    def wanting(self, known: Pool) -> str:
        """What a container of this pool lacks to be ready, as the end of a sentence; "" when it is."""
        if not self.connected:
            return (
                f"does not answer on port {known.port}; its label {labels.PORT} must be the port that it listens on, on"
                " 0.0.0.0 and not only on 127.0.0.1"
            )
        if known.path and self.status != 200:
            said = self.status or "nothing"
            return f"answers {known.path} with {said} instead of 200 (its label {labels.READY})"
        return ""


# The status that each address answers with, and how many connections were made for it, a line each
_REPLIES = """\
for url; do
    curl --silent --noproxy "*" --max-time 2 --output /dev/null --write-out "%{http_code} %{num_connects}\\n" "$url"
done"""


def replies(nginx: Container, urls: Sequence[str]) -> dict[str, Reply]:
    """What these addresses answer right now, asked from nginx, one after the other."""
    done = engine.exec_(nginx.id, ["sh", "-c", _REPLIES, "sh", *urls], check=False)
    lines = (line.split() for line in done.stdout.splitlines())
    return {url: Reply(int(code), count != "0") for url, (code, count) in zip(urls, lines, strict=False)}


def ask(nginx: Container, base: str, smoke: Smoke) -> str:
    """Send a smoke request from nginx, as it would pass on a user's; "" when its answer is right, else what is not.

    base: the container, such as http://10.0.0.3:8000.
    """
    done = engine.exec_(
        nginx.id,
        [
            *("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(_SMOKE_SECONDS)),
            *("--write-out", "\n%{http_code}", f"{base}{smoke.path}"),
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
