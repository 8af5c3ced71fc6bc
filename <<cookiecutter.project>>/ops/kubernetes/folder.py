"""The manifests as files: a base that is written as a whole, and an overlay with what people and pipelines set."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from ops.base.environments import relative
from ops.base.errors import USAGE, OpsError
from ops.base.files import replace_file
from ops.kubernetes.values import MANAGED_BY, MANAGER, PART_OF, Manifest, pod_template, templates
from ops.stack import images

BASE, OVERLAY = "base", "kustomization.yaml"
# A Kustomize component of the owner's, which no export touches.
OWN = "own"
_HEAD = (
    "# Written by `invoke export kubernetes`; the next export overwrites it. Changes of your own: docs/kubernetes.md.\n"
)


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, so that a change of one line is one line of a diff."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def text(manifests: Iterable[Manifest]) -> str:
    """Manifests as YAML."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def write(place: Path, namespace: str, files: Mapping[str, list[Manifest]]) -> None:
    """Write a folder anew. Raises OpsError (USAGE) when something is there that no export has written."""
    _refuse_other(place)
    written = render(namespace, files, (place / OWN / OVERLAY).is_file())
    shutil.rmtree(place / BASE, ignore_errors=True)
    (place / BASE).mkdir(parents=True)
    for name, content in written.items():
        replace_file(place / name, content, 0o644)


def _refuse_other(place: Path) -> None:
    if not place.exists():
        return
    overlay = place / OVERLAY
    if not place.is_dir() or (
        any(place.iterdir()) and not (overlay.is_file() and overlay.read_text().startswith(_HEAD))
    ):
        raise OpsError(
            f"{relative(place)} is there and was not written by an export; nothing was touched.",
            "Give another folder: --out FOLDER",
            USAGE,
        )


def render(namespace: str, files: Mapping[str, list[Manifest]], own: bool = False) -> dict[str, str]:
    """The text of every file by its path. own: there is a component of the owner's."""
    replicas: dict[str, int] = {}
    references = _references(each for objects in files.values() for each in objects)
    found: dict[str, str] = {}
    for name, objects in files.items():
        bare = [_bare(each, replicas, references) for each in objects]
        found[f"{BASE}/{name}.yaml"] = _HEAD + text(bare)
    resources = {"resources": [path.removeprefix(f"{BASE}/") for path in found]}
    found[f"{BASE}/kustomization.yaml"] = _HEAD + text([_kustomization(**resources)])
    overlay = _kustomization(
        resources=[BASE],
        namespace=namespace,
        labels=[{"pairs": {MANAGED_BY: MANAGER, PART_OF: namespace}, "includeTemplates": True}],
        images=[_image(reference) for reference in references.values()],
        replicas=[{"name": name, "count": count} for name, count in sorted(replicas.items())],
        **({"components": [OWN]} if own else {}),
    )
    found[OVERLAY] = _HEAD + text([overlay])
    return found


def _references(manifests: Iterable[Manifest]) -> dict[str, str]:
    """Images by their name without a tag. One that is used with several tags is not the overlay's to set."""
    found: dict[str, set[str]] = {}
    for container in (each for manifest in manifests for each in _containers(manifest)):
        found.setdefault(images.repository(container["image"]), set()).add(container["image"])
    return {name: min(tags) for name, tags in sorted(found.items()) if len(tags) == 1}


def _kustomization(**fields: Any) -> Manifest:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}


def _bare(manifest: Manifest, replicas: dict[str, int], references: Mapping[str, str]) -> Manifest:
    """An object without what the overlay says; that is noted."""
    found = deepcopy(manifest)
    if found["kind"] != "Namespace":
        del found["metadata"]["namespace"]
    for labelled in _labels(found):
        labelled.pop(PART_OF, None)
        labelled.pop(MANAGED_BY, None)
    for each in (found, *templates(found)):
        if not each["metadata"]["labels"]:
            del each["metadata"]["labels"]
        if not each["metadata"]:
            del each["metadata"]
    if "replicas" in (found.get("spec") or {}):
        replicas[found["metadata"]["name"]] = found["spec"].pop("replicas")
    for container in _containers(found):
        if (name := images.repository(container["image"])) in references:
            container["image"] = name
    return found


def _labels(manifest: Manifest) -> list[dict[str, str]]:
    return [each["metadata"]["labels"] for each in (manifest, *templates(manifest))]


def _containers(manifest: Manifest) -> list[Manifest]:
    found: list[Manifest] = (pod_template(manifest).get("spec") or {}).get("containers") or []
    return found


def _image(reference: str) -> Manifest:
    """An entry of the overlay's images."""
    name = images.repository(reference)
    if "@" in reference:
        return {"name": name, "digest": reference.partition("@")[2]}
    tag = reference.removeprefix(name).removeprefix(":")
    return {"name": name, "newTag": tag or "latest"}
