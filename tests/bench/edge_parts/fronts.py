"""What stands before the services: our edge, and the two controls, kamal-proxy and plain nginx, before the same ones.

kamal-proxy is no part of this repository: --kamal-image names an image on this engine whose entrypoint it is.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.bench.edge_parts import engine
from tests.stack.project import Project, docker
from tests.stack.rollouts import ENVIRONMENT, ROLLING, append, edit

# A page of web that asks nobody, and is as well as a file in its container says.
_PROBE = '''

@routes.api_route("/probe", methods=["GET", "POST"])
async def probe() -> Response:
    """An answer at once, unless a file says otherwise."""
    if Path("/tmp/slow").exists():
        await asyncio.sleep(5)
    failing = Path("/tmp/unready").exists() or Path("/tmp/failing").exists()
    return Response("probe", 503 if failing else 200)
'''
_TOLD = """\
        async def told() -> None:
            if Path("/tmp/unready").exists():
                raise RuntimeError("told to be unready")

        health.add("told", told)
"""
_UPLOADS = '        health.add("uploads", check_uploads)\n'

# Services that take requests, and how kamal-proxy is to find them: host, path, and whether by TLS.
PUBLIC = {"web": "/", "api": "/api"}
INTERNAL = {"api": "api.kamal", "auth-service": "auth.kamal"}
HOP_PORT, TLS_PORT = 8081, 8443

_NGINX = """\
worker_processes auto;
pid /tmp/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    resolver 127.0.0.11 valid=1s ipv6=off;
    upstream web {{
        zone web 128k;
        server {name}:8000 resolve;
        keepalive 32;
    }}
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {{
        listen 8443 ssl;
        ssl_certificate /tls/fullchain.pem;
        ssl_certificate_key /tls/privkey.pem;
        ssl_protocols TLSv1.3;
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_pass http://web;
        }}
    }}
}}
"""


def probed(project: Project) -> None:
    """Give web the page that probes ask for, and a check that can be told to fail."""
    append(project, "services/web/web/routes.py", _PROBE)
    edit(project, "services/web/web/routes.py", "import re\n", "import asyncio\nimport re\n")
    edit(project, "services/web/web/routes.py", "from typing import", "from pathlib import Path\nfrom typing import")
    edit(project, "services/web/web/app.py", _UPLOADS, _UPLOADS + _TOLD)
    edit(project, "services/web/web/app.py", "import asyncio\n", "import asyncio\nfrom pathlib import Path\n")


def tls(project: Project) -> Path:
    """The folder of the certificate, which has fullchain.pem and privkey.pem."""
    return project.folder / "config" / ENVIRONMENT / "secrets" / "tls"


def container(project: Project, service: str) -> str:
    """The first container of a service."""
    return replicas(project, service)[0]


def replicas(project: Project, service: str) -> list[str]:
    """Names of a service's containers."""
    label = f"label=com.docker.compose.service={service}"
    mine = f"label=com.docker.compose.project={project.name(ENVIRONMENT)}"
    return sorted(docker("ps", "--format", "{{.Names}}", f"--filter={mine}", f"--filter={label}").split())


def network(project: Project, name: str) -> str:
    """Name on the engine of a network."""
    return f"{project.name(ENVIRONMENT)}_{name}"


@contextmanager
def plain_nginx(project: Project, name: str = "") -> Iterator[str]:
    """nginx with TLS before web, found by its name, as most people write it: its container.

    name: of the containers, where it is not the service's.
    """
    image = docker("inspect", "--format", "{{.Config.Image}}", container(project, "nginx"))
    own = f"{project.name(ENVIRONMENT)}-plain-nginx"
    configuration = project.folder / "plain-nginx.conf"
    configuration.write_text(_NGINX.format(name=name or "web"))
    options = ("--detach", "--name", own, "--network", network(project, "backend"), "--entrypoint", "nginx")
    mounts = (f"--volume={configuration}:/etc/nginx/nginx.conf:ro", f"--volume={tls(project)}:/tls:ro")
    docker("run", *options, *mounts, image, "-g", "daemon off;")
    try:
        time.sleep(1)
        assert docker("inspect", "--format", "{{.State.Running}}", own) == "true", docker("logs", own)
        yield own
    finally:
        docker("rm", "--force", own, check=False)


@dataclass
class Kamal:
    """kamal-proxy before copies of a stack's containers. serving: names of the copies by service."""

    project: Project
    image: str
    serving: dict[str, list[str]] = field(default_factory=dict)
    _number: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def name(self) -> str:
        """Of the proxy's container."""
        return f"{self.project.name(ENVIRONMENT)}-kamal-proxy"

    @contextmanager
    def running(self) -> Iterator[Kamal]:
        """Start the proxy; nothing of it and its copies stays."""
        found = subprocess.run(["docker", "image", "inspect", self.image], capture_output=True)
        assert found.returncode == 0, f"there is no image {self.image}: see tests/bench/edge_parts/fronts.py"
        options = ("--detach", "--name", self.name, "--tmpfs=/tmp", f"--volume={tls(self.project)}:/tls:ro")
        ports = ("run", "--http-port", str(HOP_PORT), "--https-port", str(TLS_PORT))
        docker("run", *options, "--network", network(self.project, "frontend"), self.image, *ports)
        try:
            aliases = [part for name in INTERNAL.values() for part in ("--alias", name)]
            docker("network", "connect", *aliases, network(self.project, "backend"), self.name)
            yield self
        finally:
            gone = [self.name, *itertools.chain(*self.serving.values())]
            docker("rm", "--force", *gone, check=False)

    def send(self, service: str, targets: Sequence[str]) -> None:
        """Send a service's requests to these containers; returns when the former ones have finished theirs."""
        common = [part for each in targets for part in ("--target", f"{each}:8000")]
        common += ["--health-check-path", "/health/ready", "--strip-path-prefix=false"]
        ways = []
        if path := PUBLIC.get(service):
            secure = [
                "--tls",
                "--tls-certificate-path",
                "/tls/fullchain.pem",
                "--tls-private-key-path",
                "/tls/privkey.pem",
            ]
            ways.append(
                [service, "--host", "localhost", *(secure if path == "/" else ["--path-prefix", path]), *common]
            )
        if host := INTERNAL.get(service):
            ways.append([f"{service}-internal", "--host", host, *common])
        program = docker("inspect", "--format", "{{index .Config.Entrypoint 0}}", self.name)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda way: docker("exec", self.name, program, "deploy", *way), ways))

    def roll(self, services: Sequence[str], count: int) -> dict[str, float]:
        """Replace the containers of services by `count` new ones each; seconds by step."""
        began = time.time()
        joined = {network(self.project, each) for each in ("frontend", "backend", "database", "scrape")}
        hops = {"API_URL": f"http://api.kamal:{HOP_PORT}", "AUTH_URL": f"http://auth.kamal:{HOP_PORT}"}
        new: dict[str, list[str]] = {}
        for service in services:
            model = container(self.project, service)
            # The proxy has drained them by then: they need not wait for requests to move away.
            environ = {**(hops if service in ("web", "api") else {}), "DRAIN_SECONDS": "0"}
            new[service] = [f"{self.name}-{service}-{next(self._number)}" for _ in range(count)]
            for name in new[service]:
                engine.copy(model, name, joined, environ)
        created = time.time()
        fresh = list(itertools.chain(*new.values()))
        old = [name for service in services for name in self.serving.get(service, ())]
        self.serving |= new
        docker("start", *fresh)
        started = time.time()
        taking = [each for each in services if each in PUBLIC or each in INTERNAL]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda each: self.send(each, new[each]), taking))
        sent = time.time()
        switched = min(sent, max(self._healthy_since(started), started))
        if old:
            docker("stop", "--time", "45", *old)
            docker("rm", *old)
        ended = time.time()
        return {
            "create": created - began,
            "start": started - created,
            "prove": switched - started,
            "drain": sent - switched,
            "stop": ended - sent,
            "all": ended - began,
        }

    def _healthy_since(self, moment: float) -> float:
        """When the last of the targets was found healthy, as seconds of the clock."""
        since = datetime.fromtimestamp(moment).astimezone().isoformat()
        lines = docker("logs", "--since", since, self.name).splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and '"Target health updated"' in line]
        times = [datetime.fromisoformat(each["time"]).timestamp() for each in events if each["state"] == "healthy"]
        return max(times, default=moment)

    def start(self, count: int) -> None:
        """Copies of everything that takes part in an answer."""
        self.roll(["auth-service"], count)
        self.roll(["api"], count)
        self.roll([each for each in ROLLING if each not in ("auth-service", "api")], count)

    def target(self) -> str:
        """Where it takes requests by TLS."""
        return f"{engine.address(self.name)}:{TLS_PORT}"
