"""What is declared and what exists in an environment, read at one moment, before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.engine import Container
from ops.parts.nginx import edge
from ops.stack import images, model, networks
from ops.stack.model import Stack
from ops.state import digests, releases
from ops.state.drift import Declared, Drift, drift

# Stands for the id of an image that is still to be built.
NOT_BUILT = "not built"


@dataclass(frozen=True)
class Survey:
    """What is declared and what exists, read at one moment.

    hashes: Compose's hash of the declared configuration, by container id; files: of a service; notes: what containers
    have mounted; pinned: services whose requests go to fixed addresses, as they do during a rollout; deployed: services
    as the last deploy declared them.
    """

    stack: Stack
    hashes: dict[str, str]
    containers: list[Container]
    own: list[images.OwnImage]
    image_ids: dict[str, str]
    files: dict[str, dict[str, digests.FileState]]
    notes: digests.Notes = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    deployed: Mapping[str, Any] = field(default_factory=dict)

    def needs(self) -> images.Needs:
        """Images to build, tag or pull."""
        return images.needs(self.stack, self.own, self.image_ids)

    def expected_images(self) -> dict[str, str]:
        """Image ids by reference as they will be once our own are built."""
        return {**self.image_ids, **{each.reference: self.image_ids.get(each.content, NOT_BUILT) for each in self.own}}

    def drifts(self) -> dict[str, Drift]:
        """How each container of a declared service differs from what is declared, by id."""
        present = self.expected_images()
        found = {}
        for each in self.containers:
            if service := self.stack.services.get(each.service):
                files = self.files.get(each.service, {})
                declared = Declared(
                    self.hashes.get(each.id, ""),
                    present.get(service.image, ""),
                    {path: state.digest for path, state in files.items()},
                )
                found[each.id] = drift(each, declared, digests.mounted_by(each, files, self.notes.get(each.id)))
        return found


def survey(env: Environment) -> Survey:
    """Read everything a decision needs, concurrently: most of it is waiting for docker."""
    engine.warn_overridden(env)
    with engine.pool(3) as pool:
        hashes = pool.submit(model.hashes, env)
        containers = pool.submit(_containers, env)
        declared = model.load(env)
        networks.refuse(env, declared)
        own = images.own_images(env, declared)
        image_ids = pool.submit(engine.image_ids, images.references(declared, own))
        files = digests.mounted_files(declared, env.project_dir)
        found, pinned = containers.result()
        by_service = hashes.result()
        return Survey(
            declared,
            {each.id: by_service.get(each.service, "") for each in found},
            found,
            own,
            image_ids.result(),
            files,
            digests.read_notes(env),
            pinned,
            _deployed(env),
        )


def _containers(env: Environment) -> tuple[list[Container], tuple[str, ...]]:
    found = engine.containers(env)
    nginx = edge.find(found)
    return found, tuple(name for name, addresses in _peers(nginx).items() if addresses) if nginx else ()


def _peers(nginx: Container) -> dict[str, list[str]]:
    """What nginx sends requests to; nothing when it cannot be asked: one that ends has forgotten it anyway."""
    try:
        return edge.peers(nginx)
    except OpsError:
        return {}


def _deployed(env: Environment) -> Mapping[str, Any]:
    current = releases.current(env)
    try:
        return releases.document(env, current)["services"] if current else {}
    except (OpsError, KeyError):
        return {}


@dataclass(frozen=True)
class Glance:
    """What is declared, and which containers exist."""

    stack: Stack
    containers: list[Container]


def glance(env: Environment) -> Glance:
    """Read the declaration and the containers, at once."""
    engine.warn_overridden(env)
    with engine.pool(1) as pool:
        containers = pool.submit(engine.containers, env)
        return Glance(model.load(env), containers.result())
