"""HAProxy, nginx's configuration or the engine's name server is away for a moment: what gets lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.edge_parts import engine
from tests.bench.edge_parts.fronts import container
from tests.bench.rollouts import table
from tests.load.run import Load
from tests.stack.project import Project, docker, eventually
from tests.stack.rollouts import ENVIRONMENT, deploy

RATE = 100
SILENT_SECONDS = 15
# How long requests go on after each of these.
AFTER = 8


def killed(project: Project) -> None:
    """SIGKILL from outside: its restart policy starts it again."""
    os.kill(engine.running_pid(container(project, "haproxy")), signal.SIGKILL)


def restarted(project: Project) -> None:
    docker("restart", container(project, "haproxy"))


def reloaded(project: Project) -> None:
    docker("kill", "--signal", "USR2", container(project, "haproxy"))


def updated(project: Project) -> None:
    """Another image by name, and a deploy."""
    image = docker("inspect", "--format", "{{.Config.Image}}", container(project, "haproxy"))
    # Names in turn that no registry is asked for: they are on this engine.
    other = f"{image.removesuffix('-other')}{'' if image.endswith('-other') else '-other'}"
    docker("tag", image, other)
    project.set(ENVIRONMENT, HAPROXY_IMAGE=other)
    deploy(project)


def nginx_reloaded(project: Project) -> None:
    docker("kill", "--signal", "HUP", container(project, "nginx"))


def silent(*services: str) -> Callable[[Project], None]:
    """The engine's name server does not answer these services."""

    def act(project: Project) -> None:
        inside = [
            ["nsenter", "--net", "--target", str(engine.running_pid(container(project, each))), "iptables"]
            for each in services
        ]
        rule = ["OUTPUT", "--destination", "127.0.0.11", "--jump", "DROP"]
        for each in inside:
            subprocess.run([*each, "--insert", *rule], check=True, capture_output=True)
        time.sleep(SILENT_SECONDS)
        for each in inside:
            subprocess.run([*each, "--delete", *rule], check=True, capture_output=True)

    return act


EVENTS: dict[str, Callable[[Project], None]] = {
    "HAProxy killed, restarted by its policy": killed,
    "HAProxy restarted (`docker restart`)": restarted,
    "HAProxy reloaded": reloaded,
    "HAProxy's image updated by a deploy": updated,
    "nginx reloaded": nginx_reloaded,
    f"the engine's name server silent for {SILENT_SECONDS} s, to HAProxy and nginx": silent("haproxy", "nginx"),
}
ALONE = ("HAProxy killed, restarted by its policy", "HAProxy restarted (`docker restart`)")


def measure(project: Project, rounds: int) -> str:
    """The table: lost in each round, and of HAProxy alone as the control."""
    rows = [row(project, what, EVENTS[what], rounds) for what in EVENTS]
    with without_fallback(project):
        rows += [row(project, f"control, nginx without the fallback: {what}", EVENTS[what], rounds) for what in ALONE]
    return table(("what", "lost", "of", "why"), rows)


def row(project: Project, what: str, event: Callable[[Project], None], rounds: int) -> list[str]:
    """One event, some times."""
    lost, sent, why = [], 0, set()
    for _ in range(rounds):
        with Load(project, ENVIRONMENT, rate=RATE, mixture="probes") as load:
            time.sleep(3)
            load.enter("away")
            event(project)
            time.sleep(AFTER)
        eventually(lambda: well(project), 60, "HAProxy is healthy")
        lost.append(len(load.report.all.lost))
        sent += load.report.all.sent
        why |= {f"{each.transport} {each.kind}: {each.lost}" for each in load.report.all.lost}
    found = [what, ", ".join(map(str, lost)), f"{sent:,}", "; ".join(sorted(why)) or "–"]
    print(found, flush=True)
    return found


def well(project: Project) -> bool:
    """Whether HAProxy runs and says that it is healthy."""
    return docker("inspect", "--format", "{{.State.Health.Status}}", container(project, "haproxy")) == "healthy"


@contextmanager
def without_fallback(project: Project) -> Iterator[None]:
    """nginx knows HAProxy and nothing else."""
    nginx = container(project, "nginx")
    mounts = engine.ask("GET", f"/containers/{nginx}/json")["Mounts"]
    (volume,) = (each["Name"] for each in mounts if each.get("Name", "").endswith("_edge"))
    image = docker("inspect", "--format", "{{.Config.Image}}", nginx)

    def on_volume(script: str) -> None:
        docker("run", "--rm", "--user=0", f"--volume={volume}:/edge", "--entrypoint=sh", image, "-c", script)

    on_volume("cd /edge && grep -rl ' backup;' . | xargs sed -i.kept '/ backup;/d'")
    docker("kill", "--signal", "HUP", nginx)
    time.sleep(1)
    try:
        yield
    finally:
        on_volume('cd /edge && find . -name \'*.kept\' | while read each; do mv "$each" "${each%.kept}"; done')
        docker("kill", "--signal", "HUP", nginx)
