"""What nginx and HAProxy are told about the services, rendered from the Compose files into a volume that both mount.

It is on the engine and not in a folder of the project, so whoever deploys from wherever compares with what is there.
Adding a service means new files and a reload; neither nginx nor HAProxy restarts for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ops import engine
from ops.base import tar
from ops.base.environments import Environment
from ops.engine import Container
from ops.parts.haproxy import configuration, pool
from ops.parts.nginx import edge
from ops.parts.nginx import routes as nginx
from ops.stack import pools
from ops.stack.model import Stack

# The volume, as the Compose files call it.
VOLUME = "edge"
# Those that read it, in the order in which they are brought up: nginx goes by the services' names without HAProxy.
READERS = {pool.SERVICE: ("pools.cfg",), edge.SERVICE: ("http.conf", "site.conf")}
# Where they have it.
_FOLDERS = {pool.SERVICE: "/etc/haproxy/routes", edge.SERVICE: "/etc/nginx/routes"}


def render(declared: Stack, canaries: Mapping[str, int] | None = None) -> dict[str, str]:
    """The files by name. canaries: as of configuration.render. Raises OpsError (USAGE) for wrong labels."""
    found = pools.declared(declared)
    return {**nginx.render(found), "pools.cfg": configuration.render(found, canaries)}


def read(containers: Iterable[Container]) -> dict[str, str]:
    """The files that are there, read through one that has them mounted; none while none of those runs.

    Not by `docker cp`: that makes every folder of the host anew that the container mounts and that is gone.
    """
    found = next((each for each in containers if each.service in READERS and each.running and not each.looping), None)
    if not found:
        return {}
    done = engine.exec_(found.id, ["tar", "-C", _FOLDERS[found.service], "-cf", "-", "."], check=False)
    files = tar.unpacked(done.stdout.encode()) if done.ok else {}
    return {name.rpartition("/")[2]: text for name, text in files.items()}


def write(env: Environment, declared: Stack, files: Mapping[str, str]) -> None:
    """Put files into the volume, and make that when it is not there. They count after a reload.

    A container that never starts gives access to the volume; its image is nginx's, which is on the engine by now. Both
    readers are other users than root, so the files are for everybody to read.
    """
    volume: Mapping[str, Any] = declared.document["volumes"][VOLUME]
    labels = {"project": env.project, "volume": VOLUME}
    options = (word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}"))
    engine.docker("volume", "create", *options, volume["name"])
    name = f"{env.project}-routes"
    # One that a killed deploy left behind
    engine.docker("rm", "--force", name, check=False)
    image = declared.services[edge.SERVICE].image
    engine.docker(
        "create", "--name", name, "--network", "none", "--volume", f"{volume['name']}:{_FOLDERS[edge.SERVICE]}", image
    )
    try:
        engine.docker("cp", "-", f"{name}:{_FOLDERS[edge.SERVICE]}", input=tar.packed(files, 0o644))
    finally:
        engine.docker("rm", "--force", name, check=False)
