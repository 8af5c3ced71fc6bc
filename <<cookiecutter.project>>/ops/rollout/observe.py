"""What is declared and what exists in an environment, read at one moment, before anything is decided."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.engine import Container
from ops.parts import provision, routes
from ops.stack import contract, images, model, networks
from ops.stack.model import Stack
from ops.stack.owned import Owned
from ops.state import digests, elsewhere, memory, releases
from ops.state.digests import Digests
from ops.state.document import State
from ops.state.drift import Declared, Drift, drift
from ops.state.places import with_folder, without_folder

# Stands for the id of an image that is still to be built.
NOT_BUILT = "not built"


@dataclass(frozen=True)
class Survey:
    """What is declared and what exists, read at one moment.

    hashes: Compose's hash of the declared configuration, by container id; files: digests of what each service mounts,
    mounted: of what each container has mounted, by id; unnoted: whether nobody had noted that of some; routes:
    what nginx, HAProxy and Prometheus are told about the services, by file, and declared_routes: what they should be;
    owned: what the services own in the data tier, and needed: what is missing of it;
    strangers: ids of containers that mount files of another folder, homeless: of one that is gone; deployed: services
    as the last deploy declared them.
    """

    stack: Stack
    hashes: Mapping[str, str]
    containers: list[Container]
    own: list[images.OwnImage]
    image_ids: dict[str, str]
    files: Mapping[str, Digests]
    mounted: Mapping[str, Digests] = field(default_factory=dict)
    unnoted: bool = False
    routes: Mapping[str, str] = field(default_factory=dict)
    declared_routes: Mapping[str, str] = field(default_factory=dict)
    owned: Owned = Owned()
    needed: tuple[provision.Need, ...] = ()
    deployed: Mapping[str, Any] = field(default_factory=dict)
    strangers: frozenset[str] = frozenset()
    homeless: frozenset[str] = frozenset()

    def needs(self) -> images.Needs:
        """Images to build, tag or pull."""
        return images.needs(self.stack, self.own, self.image_ids)

    def expected_images(self) -> dict[str, str]:
        """Image ids by reference as they will be once our own are built."""
        return {**self.image_ids, **{each.reference: self.image_ids.get(each.content, NOT_BUILT) for each in self.own}}

    def warn_elsewhere(self, env: Environment) -> None:
        """Say which containers mount files of another folder, a line for each folder."""
        for line in elsewhere.explain(self.containers, env.project_dir):
            console.warn(f"{env.name}: {line}")

    def drifts(self) -> dict[str, Drift]:
        """How each container of a declared service differs from what is declared, by id."""
        present = self.expected_images()
        return {
            each.id: drift(
                each,
                Declared(
                    self.hashes.get(each.id, ""), present.get(service.image, ""), self.files.get(each.service, {})
                ),
                self.mounted.get(each.id, {}),
                elsewhere=each.id in self.strangers,
                homeless=each.id in self.homeless,
            )
            for each in self.containers
            if (service := self.stack.services.get(each.service))
        }


def survey(env: Environment) -> Survey:
    """Read everything a decision needs, concurrently: most of it is waiting for docker.

    Raises OpsError (REFUSED) when what runs has secrets that this folder lacks.
    """
    engine.warn_overridden(env)
    with engine.pool(4) as pool:
        containers = pool.submit(_containers, env)
        remembered = pool.submit(memory.load, env)
        here = pool.submit(model.hashes, env)
        declared = model.load(env)
        contract.refuse(declared)
        declared_routes = routes.render(declared)
        owned = provision.declared(env, declared)
        networks.refuse(env, declared)
        own = images.own_images(env, declared)
        image_ids = pool.submit(engine.image_ids, images.references(declared, own))
        files = digests.mounted_files(declared, env.project_dir)
        found, told = containers.result()
        needed = pool.submit(provision.look, env, owned, found)
        state = remembered.result()
        elsewhere.refuse_without_secrets(env, found, state)

        def hashes(folder: str) -> Mapping[str, str]:
            if folder in {"", str(env.project_dir)}:
                return here.result()
            # Of what this folder declares, with the paths of that one, which may be gone or not be ours to read.
            there = with_folder(without_folder(declared.document, env.project_dir), Path(folder))
            with releases.as_file(there) as document:
                return model.hashes(env, document)

        new = {each.id: each for each in found if each.id not in state.mounted and each.service in declared.services}
        seen = pool.map(
            lambda each: digests.seen_by(each, declared.services[each.service], env.project_dir), new.values()
        )
        return Survey(
            declared,
            by_container(found, hashes),
            found,
            own,
            image_ids.result(),
            {name: digests.sealed(state.key, each) for name, each in files.items()},
            {**state.mounted, **{key: digests.sealed(state.key, each) for key, each in zip(new, seen, strict=True)}},
            bool(new) or not memory.is_settled(env, state),
            told,
            declared_routes,
            owned,
            needed.result(),
            _deployed(env, state),
            frozenset(each.id for each in found if elsewhere.is_elsewhere(each, env.project_dir)),
            frozenset(each.id for each in elsewhere.homeless(found, env.project_dir)),
        )


def by_container(containers: Iterable[Container], hashes: Callable[[str], Mapping[str, str]]) -> dict[str, str]:
    """Compose's hash of what is declared, by container id: what a container made from its folder would have.

    hashes: by service, when the files are in a folder ("": this one).
    """
    found = {folder: hashes(folder) for folder in dict.fromkeys(each.folder for each in containers)}
    return {each.id: found[each.folder].get(each.service, "") for each in containers}


def note(env: Environment, declared: Stack, before: Collection[str] = ()) -> None:
    """Remember what the containers have mounted, all but those of `before`. Done whenever some were made."""
    containers = engine.containers(env)
    files = digests.mounted_files(declared, env.project_dir)
    made = {each.id: files.get(each.service, {}) for each in containers if each.id not in before}
    memory.note(env, made, [each.id for each in containers])


def _containers(env: Environment) -> tuple[list[Container], dict[str, str]]:
    found = engine.containers(env)
    return found, routes.read(found)


def _deployed(env: Environment, state: State) -> Mapping[str, Any]:
    current = next(iter(releases.reachable(releases.entries(state))), None)
    document = releases.resolved(state, current, env.project_dir) if current else None
    services: Mapping[str, Any] = (document or {}).get("services", {})
    return services


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
