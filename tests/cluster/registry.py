"""A real image registry with one store and two doors: Docker pushes through one, nodes pull through the other.

Both are plain HTTP, which Docker allows for loopback. Nodes are told that it mirrors every other registry, so an image
has one name everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import httpx

from tests.cluster.lab import Lab, run, wait_for
from tests.cluster.programs import Programs


def door(lab: Lab) -> str:
    """Where nodes pull."""
    return f"{lab.server}:5000"


def up(lab: Lab, programs: Programs) -> None:
    """Start both doors, unless they are open."""
    for name, address, inside in (("registry", lab.registry, False), ("registry-nodes", door(lab), True)):
        if lab.pid(name) is None:
            config = lab.folder / f"{name}.json"
            config.write_text(json.dumps(configuration(lab.folder / "images", address)), encoding="utf-8")
            command = [str(programs.bin / "docker-registry"), "serve", str(config)]
            # It would ask a collector of traces for each request.
            quiet = {"OTEL_TRACES_EXPORTER": "none"}
            lab.begin(name, lab.in_hub(*command) if inside else command, quiet)
    log = lab.logs / "registry.log"
    if not wait_for(lambda: answers(lab), 15):
        raise RuntimeError(f"the registry does not answer at {lab.registry}: {log.read_text(encoding='utf-8')[-500:]}")


def configuration(store: Path, address: str) -> dict[str, object]:
    """What docker-registry is told."""
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(store)}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }


def answers(lab: Lab) -> bool:
    """Whether the door for Docker is open."""
    try:
        return httpx.get(f"http://{lab.registry}/v2/", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def place(image: str) -> str:
    """Where an image is in a registry: its name without the registry's own, as a mirror is asked for it."""
    first, slash, rest = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return place(rest) if first in ("docker.io", "index.docker.io") else rest
    return image if slash else f"library/{image}"


def push(lab: Lab, images: Iterable[str]) -> None:
    """Push local images. Nodes find them by the name that they have here: to them this registry is every other one."""
    for image in images:
        name = f"{lab.registry}/{place(image)}"
        run("docker", "tag", image, name)
        try:
            run("docker", "push", "--quiet", name)
        finally:
            run("docker", "rmi", name)
