"""What each hop costs: latency, processor and memory; and how many TLS handshakes a longer keep-alive saves."""

from __future__ import annotations

import http.client
import re
import select
import ssl
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.edge_parts import engine
from tests.bench.edge_parts.fronts import TLS_PORT, Kamal, container, plain_nginx
from tests.bench.rollouts import table
from tests.load.report import percentile
from tests.stack.project import Project
from tests.stack.rollouts import ENVIRONMENT, deploy

WARM_UP, REQUESTS = 200, 2000
# Clients that come back rarely, how often each of them asks, and how many seconds there are between.
CLIENTS, VISITS, PAUSE = 10, 6, 12
# What nginx kept idle connections for when each rollout reloaded it.
SHORT = 10
_KEPT = re.compile(r"^keepalive_timeout \d+s;", re.MULTILINE)


@dataclass(frozen=True)
class Way:
    """One way to web. host: HOST:PORT; pool: what HAProxy is told; containers: those that a request passes first."""

    name: str
    host: str
    containers: tuple[str, ...] = ()
    tls: bool = False
    pool: str = ""


class Secured(http.client.HTTPConnection):
    """TLS to an address, addressed as `localhost`: who asks for no name is turned away."""

    def __init__(self, host: str, authority: Path) -> None:
        super().__init__(host, timeout=30)
        self._tls = ssl.create_default_context(cafile=str(authority))

    def connect(self) -> None:
        """Connect. Raises OSError."""
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname="localhost")


def connect(project: Project, host: str, tls: bool) -> http.client.HTTPConnection:
    """A connection that is kept."""
    if tls:
        return Secured(host, project.certificate_authority(ENVIRONMENT))
    return http.client.HTTPConnection(host, timeout=30)


def ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed it: nothing is on its way between two requests, so what can be read is the end."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])


def ask(connection: http.client.HTTPConnection, **headers: str) -> None:
    """One request on a kept connection. Raises AssertionError when the answer is not the page's."""
    connection.request("GET", "/probe", headers={"Host": "localhost", **headers})
    answer = connection.getresponse()
    body = answer.read()
    assert (answer.status, body) == (200, b"probe"), (answer.status, body)


def one_after_another(project: Project, way: Way, count: int) -> list[float]:
    """Seconds that each of so many requests took, one at a time on one connection."""
    connection = connect(project, way.host, way.tls)
    headers = {"X-Pool": way.pool} if way.pool else {}
    took = []
    for _ in range(count):
        start = time.perf_counter()
        ask(connection, **headers)
        took.append(time.perf_counter() - start)
    connection.close()
    return took


def measure(project: Project, proxy: Kamal, rounds: int) -> str:
    """The table: latency, and what the parts on the way use."""
    web, haproxy, nginx = (container(project, each) for each in ("web", "haproxy", "nginx"))
    proxy.send("web", [web])
    with plain_nginx(project, web) as plain:
        ways = [
            Way("direct to web", f"{engine.address(web)}:8000"),
            Way("HAProxy", f"{engine.address(haproxy)}:8100", (haproxy,), pool="web"),
            Way("plain nginx, TLS", f"{engine.address(plain)}:{TLS_PORT}", (plain,), tls=True),
            Way("our edge: nginx, TLS, and HAProxy", f"{engine.address(nginx)}:8443", (nginx, haproxy), tls=True),
            Way("kamal-proxy, TLS", proxy.target(), (proxy.name,), tls=True),
        ]
        took: dict[str, list[float]] = {each.name: [] for each in ways}
        used: dict[str, list[float]] = {each.name: [] for each in ways}
        for way in ways:
            one_after_another(project, way, WARM_UP)
        for _ in range(rounds):
            for way in ways:
                before = [engine.usage(each).processor for each in way.containers]
                took[way.name] += one_after_another(project, way, REQUESTS)
                after = [engine.usage(each).processor for each in way.containers]
                used[way.name].append((sum(after) - sum(before)) * 1000 / REQUESTS)
        rows = []
        control = took[ways[0].name]
        for way in ways:
            p50, p99 = (1000 * percentile(took[way.name], each) for each in (50, 99))
            base50, base99 = (1000 * percentile(control, each) for each in (50, 99))
            memory = sum(engine.usage(each).memory for each in way.containers)
            parts = [f"{p50:.2f}, {p99:.2f}", f"+{p50 - base50:.2f}, +{p99 - base99:.2f}"]
            cost = [f"{statistics.median(used[way.name]):.2f}", f"{memory:.0f}"] if way.containers else ["–", "–"]
            rows.append([way.name, *parts, *cost])
    head = ("way", "p50, p99, ms", "added", "processor of the hops, s per 1,000 requests", "their memory, MiB")
    return f"{rounds} × {REQUESTS:,} requests one after another, on a kept connection\n\n{table(head, rows)}"


def handshakes(project: Project) -> str:
    """The table: connections that rare clients opened, and with the time that a design with reloads has to set.

    While nginx is reloaded its old workers close idle connections, each of which may just be carrying a request. What
    is reloaded at each rollout must not keep them for long.
    """
    rows = [["as it is", f"{_opened(project)}"]]
    http_conf = project.folder / "infrastructure/nginx/http.conf"
    text, count = _KEPT.subn(f"keepalive_timeout {SHORT}s;", http_conf.read_text())
    assert count == 1, f"keepalive_timeout is not where it was in {http_conf}"
    http_conf.write_text(text)
    deploy(project)
    rows.append([f"keepalive_timeout {SHORT}s (control)", f"{_opened(project)}"])
    what = f"{CLIENTS} clients that ask {VISITS} times, once in {PAUSE} s"
    return f"{what}\n\n{table(('edge', 'TLS handshakes'), rows)}"


def _opened(project: Project) -> int:
    """How many connections the clients open."""
    host = f"{engine.address(container(project, 'nginx'))}:{TLS_PORT}"

    def visit(number: int) -> int:
        opened = 0
        connection: http.client.HTTPConnection | None = None
        time.sleep(PAUSE * number / CLIENTS)
        for _ in range(VISITS):
            if connection is None or ended(connection):
                connection = connect(project, host, tls=True)
                opened += 1
            ask(connection)
            time.sleep(PAUSE)
        return opened

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(visit, range(CLIENTS)))
