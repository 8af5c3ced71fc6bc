"""What nginx, HAProxy and Prometheus are told about the services, rendered from the Compose files into a volume that
all of them mount.

It is on the engine and not in a folder of the project, so whoever deploys from wherever compares with what is there.
Adding a service means new files and a reload; none of the readers restarts for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base import tar
from ops.base.environments import Environment
from ops.engine import Container
from ops.parts import prometheus
from ops.parts.haproxy import configuration, pool
from ops.parts.nginx import edge
from ops.parts.nginx import routes as nginx
from ops.stack import pools
from ops.stack.model import Stack

# The volume, as the Compose files call it.
VOLUME = "edge"


@dataclass(frozen=True)
class Reader:
    """A service that reads some of the files. folder: where it has the volume mounted."""

    files: tuple[str, ...]
    folder: str

    def of(self, files: Mapping[str, str]) -> dict[str, str]:
        """Those of the files that it reads."""
        return {name: text for name, text in files.items() if name in self.files}


READERS = {
    pool.SERVICE: Reader(("pools.cfg",), "/etc/haproxy/routes"),
    edge.SERVICE: Reader(("http.conf", "site.conf", "internal.conf", "hosts.conf"), "/etc/nginx/routes"),
    prometheus.SERVICE: Reader(("services.yml", "expected.yml"), "/etc/prometheus-services"),
}
# Those that pass requests on, in the order in which they are brought up: without HAProxy nginx goes by the names.
EDGE = (pool.SERVICE, edge.SERVICE)


def render(declared: Stack, canaries: Mapping[str, int] | None = None) -> dict[str, str]:
    """The files by name. canaries: as of configuration.render. Raises OpsError (USAGE) for wrong labels."""
    found = pools.declared(declared)
    return {
        **nginx.render(found),
        "pools.cfg": configuration.render(found, canaries),
        **prometheus.render(declared),
    }


def of_edge(files: Mapping[str, str]) -> dict[str, str]:
    """Those of the files that the edge reads."""
    return {name: text for reader in EDGE for name, text in READERS[reader].of(files).items()}


def read(containers: Iterable[Container]) -> dict[str, str]:
    """The files that are there, read through one that has them mounted; none while none of those runs.

    Not by `docker cp`: that makes every folder of the host anew that the container mounts and that is gone.
    """
    found = next((each for each in containers if each.service in READERS and each.running and not each.looping), None)
    if not found:
        return {}
    done = engine.exec_(found.id, ["tar", "-C", READERS[found.service].folder, "-cf", "-", "."], check=False)
    files = tar.unpacked(done.stdout.encode()) if done.ok else {}
    return {name.rpartition("/")[2]: text for name, text in files.items()}


def write(env: Environment, declared: Stack, files: Mapping[str, str]) -> None:
    """Put files into the volume beside those that are there, and make it when it is not there. They count after a
    reload.

    A container that never starts gives access to the volume; its image is nginx's, which is on the engine by now. The
    readers are other users than root, so the files are for everybody to read.
    """
    volume: Mapping[str, Any] = declared.document["volumes"][VOLUME]
    labels = {"project": env.project, "volume": VOLUME}
    options = (word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}"))
    engine.docker("volume", "create", *options, volume["name"])
    name = f"{env.project}-routes"
    # One that a killed deploy left behind
    engine.docker("rm", "--force", name, check=False)
    image, folder = declared.services[edge.SERVICE].image, READERS[edge.SERVICE].folder
    engine.docker("create", "--name", name, "--network", "none", "--volume", f"{volume['name']}:{folder}", image)
    try:
        engine.docker("cp", "-", f"{name}:{folder}", input=tar.packed(files, 0o644))
    finally:
        engine.docker("rm", "--force", name, check=False)
