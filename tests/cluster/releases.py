"""Releases that fail, one of each kind: what is deployed, and the exit code that says why it did not work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.cluster.site import Site

# How long a pod may take to become ready in these, in seconds: the default is three minutes.
TIMEOUT = 45
FILE = "bad-release.yml"

_NO_IMAGE = "build: !reset null\n    image: registry.invalid/none:1"
_EVER = '[python, -c, "import time; time.sleep(3600)"]'
_MEMORY = '[python, -c, "kept = [bytearray(1 << 24) for _ in range(1 << 12)]"]'


class Bad(NamedTuple):
    """A service with other settings, as text of a Compose file, and the exit code of its deploy."""

    service: str
    settings: str
    code: int


BAD = {
    "an image that cannot be pulled": Bad("api", _NO_IMAGE, 4),
    "a command that does not exist": Bad("api", "entrypoint: [/no/such/program]", 6),
    "a process that ends": Bad("api", 'entrypoint: [python, -c, "raise SystemExit(3)"]', 6),
    "a container that never gets ready": Bad("api", f"entrypoint: {_EVER}", 7),
    "a process that takes too much memory": Bad("api", f"entrypoint: {_MEMORY}", 9),
    "a migration that fails": Bad("migrate", "entrypoint: [python, -c, \"raise SystemExit('no such column')\"]", 5),
    "a migration that no node has room for": Bad(
        "migrate", "deploy: {resources: {reservations: {memory: 900g}, limits: {memory: 900g}}}", 5
    ),
    "a migration whose image cannot be pulled": Bad("migrate", _NO_IMAGE, 4),
}


@contextmanager
def declared(site: Site, bad: Bad, timeout: int = TIMEOUT) -> Iterator[None]:
    """The project with such a release declared; as it was afterwards. timeout: for a pod to become ready, seconds."""
    path = site.project.env_file(site.environment)
    before = path.read_text(encoding="utf-8")
    file = site.project.folder / FILE
    file.write_text(f"services:\n  {bad.service}:\n    {bad.settings}\n", encoding="utf-8")
    try:
        files = site.project.settings(site.environment)["COMPOSE_FILE"]
        site.project.set(site.environment, COMPOSE_FILE=f"{files}:{FILE}")
        with path.open("a", encoding="utf-8") as settings:
            settings.write(f"DEPLOY_TIMEOUT={timeout}\n")
        yield
    finally:
        path.write_text(before, encoding="utf-8")
        file.unlink()
