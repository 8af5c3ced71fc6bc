"""Requests a second and p99 of the API: through nginx with TLS, without nginx, and on another application server.

    python -m tests.bench.load [--seconds 8] [--rounds 3]

Every row is measured in the same run on the same stack, in turn, `rounds` times; the table shows medians and the
ratio to the control (the same application on uvicorn, without nginx and TLS in front). Needs `wrk` and an engine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port
from tests.stack.project import Project, docker

CONNECTIONS = 32  # enough to keep two cores busy, few enough that waiting in line is not what is measured

# The same container image and settings as `api`, published on loopback so that the load reaches it without nginx.
DIRECT = """\
services:
  api:
    ports: ["127.0.0.1:{uvicorn}:8000"]
  api-granian:
    extends: {{file: docker-compose.services.yml, service: api}}
    image: {granian_image}
    build: !reset null
    ports: ["127.0.0.1:{granian}:8000"]
    entrypoint: [/venv/bin/granian, --interface, asgi, --host, 0.0.0.0, --port, "8000", --loop, uvloop, --no-access-log]
    command: [--factory, "api.app:create_app"]
    deploy: {{replicas: 1}}
"""

GRANIAN = """\
FROM {api}
USER root
RUN --mount=type=secret,id=ca,target=/tmp/ca.crt \\
    PYTHONPATH='' PIP_CERT=/tmp/ca.crt \\
    /usr/local/bin/python -m pip --python /venv/bin/python install -q "granian[uvloop]=={version}"
USER 10001:10001
"""


@dataclass(frozen=True)
class Sample:
    """One run of the load generator."""

    rate: float  # requests a second
    p99: float  # milliseconds
    errors: int  # answers that are not 2xx, and socket errors


def parse(output: str) -> Sample:
    """Read wrk's report. Raises ValueError when it is not one."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", output)
    if rate is None or p99 is None:
        raise ValueError(f"not a report of wrk: {output}")
    factor = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    errors = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    errors += sum(
        int(count) for line in re.findall(r"Socket errors: (.*)", output) for count in re.findall(r"\d+", line)
    )
    return Sample(float(rate[1]), float(p99[1]) * factor, errors)


def load(url: str, token: str, seconds: int, script: Path | None) -> Sample:
    argv = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {token}"]
    if script:
        argv += ["-s", str(script)]
    return parse(subprocess.run([*argv, url], capture_output=True, text=True, check=True).stdout)


def build_granian(project: Project, version: str) -> str:
    api = docker("inspect", "--format", "{{.Config.Image}}", next(n for n in project.containers() if "-api-" in n))
    tag = f"{api.split(':')[0]}-granian:bench"
    with tempfile.TemporaryDirectory() as context:
        (Path(context) / "Dockerfile").write_text(GRANIAN.format(api=api, version=version))
        ca = project.settings()["BUILD_CA_BUNDLE"]
        subprocess.run(["docker", "build", "-q", "--secret", f"id=ca,src={ca}", "-t", tag, context], check=True)
    return tag


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row; the median is shown")
    parser.add_argument("--granian", default="2.8.7", help="version of the other application server")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not installed (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        project = Project.bake(Path(folder), project_name="Bench Stack")
        try:
            return measure(project, Path(folder), options)
        finally:
            project.remove()


def measure(project: Project, folder: Path, options: argparse.Namespace) -> int:
    # The rate limit protects people from each other; here it would only measure itself.
    for config in (project.folder / "config/dev/nginx").glob("*.conf"):
        config.write_text(re.sub(r"rate=\d+r/s", "rate=100000r/s", config.read_text()))
    project.set(BUILD_TARGET="production", LOG_LEVEL="warning")
    project.invoke("deploy")

    uvicorn, granian = free_port(), free_port()
    tag = build_granian(project, options.granian)
    (project.folder / "docker-compose.bench.yml").write_text(
        DIRECT.format(uvicorn=uvicorn, granian=granian, granian_image=tag)
    )
    project.set(COMPOSE_FILE=project.settings()["COMPOSE_FILE"] + ":docker-compose.bench.yml")
    compose = ["docker", "compose", "--env-file", "config/dev/.env"]
    up = [*compose, "up", "-d", "--wait", "--quiet-pull", "api", "api-granian", "nginx"]
    subprocess.run(up, cwd=project.folder, check=True)

    with project.client() as client:
        project.sign_in(client, "bench@example.com")
        token = client.headers["Authorization"].removeprefix("Bearer ")
        item = client.post("/api/v1/items", json={"title": "bench", "body": "x" * 200}).json()["id"]
    write = folder / "write.lua"
    write.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = \'{"title": "bench"}\'\n'
    )
    time.sleep(5)  # the mails of the warm-up are out of the way

    direct, other = f"http://127.0.0.1:{uvicorn}", f"http://127.0.0.1:{granian}"
    servers = {"uvicorn, direct (control)": direct, "nginx + TLS → uvicorn": project.url(), "granian, direct": other}
    paths = {
        "cached read": (f"/api/v1/items/{item}", None),
        "database read": (f"/api/v1/items/{item}?fresh=1", None),
        "write": ("/api/v1/items", write),
    }
    samples: dict[tuple[str, str], list[Sample]] = {}
    for base in servers.values():
        load(base + f"/api/v1/items/{item}", token, 2, None)
    for _ in range(options.rounds):
        for operation, (path, script) in paths.items():
            for server, base in servers.items():
                samples.setdefault((operation, server), []).append(load(base + path, token, options.seconds, script))
    print(table(samples, options))
    return 0


def table(samples: dict[tuple[str, str], list[Sample]], options: argparse.Namespace) -> str:
    """The medians as Markdown, with each row's ratio to the control of its operation."""
    lines = [
        f"`python -m tests.bench.load --seconds {options.seconds} --rounds {options.rounds}`, "
        f"{CONNECTIONS} connections, 1 replica, load generator on the same 2 cores",
        "",
        "| operation | server | requests/s | × control | p99, ms | × control | errors |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (operation, server), runs in samples.items():
        control = samples[operation, "uvicorn, direct (control)"]
        rate, base_rate = (statistics.median(run.rate for run in group) for group in (runs, control))
        p99, base_p99 = (statistics.median(run.p99 for run in group) for group in (runs, control))
        errors = sum(run.errors for run in runs)
        lines.append(
            f"| {operation} | {server} | {rate:,.0f} | {rate / base_rate:.2f} "
            f"| {p99:.1f} | {p99 / base_p99:.2f} | {errors} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
