"""The secrets of an environment as Secrets. They are printed, never written to a file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path

from ops.base.environments import relative
from ops.base.errors import USAGE, OpsError
from ops.kubernetes import storage
from ops.kubernetes.storage import TLS_FILES, Project
from ops.kubernetes.values import PART_OF, Manifest, made, object_name
from ops.stack.model import Stack


def manifests(project: Project, stack: Stack, names: Iterable[str], namespace: str) -> list[Manifest]:
    """The Secrets that some services mount. Raises OpsError (USAGE) that names the files which are missing."""
    entries = [stack.document["services"][name] for name in names]
    declared = stack.document.get("secrets") or {}
    wanted = sorted({each["source"] for entry in entries for each in entry.get("secrets") or ()})
    files = {name: {name: Path(declared[name]["file"])} for name in wanted}
    binds = (volume for entry in entries for volume in entry.get("volumes") or () if volume["type"] == "bind")
    folders = sorted({Path(each["source"]) for each in binds if Path(each["source"]).is_relative_to(project.secrets)})
    for folder in folders:
        files[folder.name] = {key: folder / file for key, file in storage.secret_files(folder).items()}
    missing = [relative(path) for each in files.values() for path in each.values() if not path.is_file()]
    if missing:
        raise OpsError(
            f"{', '.join(missing)}: not there.",
            f"Create them: invoke secret-init --env {project.environment}; for a certificate, invoke certificate --env"
            f" {project.environment}",
            USAGE,
        )
    return list(_secrets(files, namespace))


def _secrets(files: dict[str, dict[str, Path]], namespace: str) -> Iterator[Manifest]:
    for name, keys in files.items():
        kind = "kubernetes.io/tls" if keys.keys() == TLS_FILES.keys() else "Opaque"
        data = {key: b64encode(path.read_bytes()).decode() for key, path in keys.items()}
        secret = made("Secret", object_name(name), type=kind, data=data)
        secret["metadata"] |= {"namespace": namespace}
        secret["metadata"]["labels"][PART_OF] = namespace
        yield secret
