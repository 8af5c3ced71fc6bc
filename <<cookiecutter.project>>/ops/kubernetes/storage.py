"""What a container sees of files: volumes, folders of the project, secrets, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.kubernetes import configuration
from ops.kubernetes.values import Manifest, amount, made, object_name, quantity
from ops.parts import routes
from ops.stack import labels
from ops.stack.model import Stack
from ops.state import store

SECRETS = "/run/secrets"
# The volume in which the commands keep what was deployed; in a cluster that is a Secret.
RELEASES = "release_state"
# The folder of config/<env>/secrets with the certificate, the Secret that holds it, and its files by their key there:
# the names that cert-manager and a Gateway expect.
TLS = "tls"
TLS_FILES = {"tls.crt": "fullchain.pem", "tls.key": "privkey.pem"}


@dataclass(frozen=True)
class Claims:
    """How storage is asked for. size: of a volume that has no size of its own; classes: of volumes that one pod writes,
    and of those that several do ("": the cluster's default)."""

    size: str = "10Gi"
    sizes: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = ""
    shared_class: str = ""

    def spec(self, volume: str, shared: bool) -> Manifest:
        """The spec of a claim. volume: as the Compose files call it; shared: several pods write it."""
        name = self.shared_class if shared else self.storage_class
        return {
            "accessModes": ["ReadWriteMany" if shared else "ReadWriteOnce"],
            "resources": {"requests": {"storage": self.sizes.get(volume, self.size)}},
            **({"storageClassName": name} if name else {}),
        }


@dataclass
class Files:
    """What a pod mounts. volumes: those that the pod brings; claimed: Compose volumes whose claims are its own or are
    made beside it, with the name of the pod's volume."""

    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    claimed: dict[str, str] = field(default_factory=dict)
    configs: list[Manifest] = field(default_factory=list)

    def add(self, name: str, target: str, source: Manifest | None, read_only: bool = False, sub_path: str = "") -> None:
        """Mount a volume. source: what it is; None when a claim brings it."""
        if source is not None and name not in {each["name"] for each in self.volumes}:
            self.volumes.append({"name": name, **source})
        mount: Manifest = {"name": name, "mountPath": target}
        if sub_path:
            mount["subPath"] = sub_path
        if read_only:
            mount["readOnly"] = True
        self.mounts.append(mount)


@dataclass(frozen=True)
class Project:
    """Where the files are. rendered: those that the volume `edge` holds, by service."""

    root: Path
    environment: str
    rendered: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        """The folder of the environment's secrets."""
        return self.root / "config" / self.environment / "secrets"

    def name(self, source: Path) -> str:
        """What a folder of the project is called as an object: infrastructure/nginx -> infrastructure-nginx."""
        return object_name(source.relative_to(self.root).as_posix().replace(f"config/{self.environment}/", "config/"))


def files(project: Project, name: str, entry: Mapping[str, Any]) -> Files:
    """What a service's pod mounts. Raises OpsError when a file cannot be read or is too large."""
    found = Files()
    for volume in entry.get("volumes") or ():
        read_only = bool(volume.get("read_only"))
        if volume["type"] == "volume":
            _volume(found, project, name, volume, read_only)
        elif volume["type"] == "bind" and exported(project, volume):
            _folder(found, project, Path(volume["source"]), volume["target"])
        elif volume["type"] == "tmpfs":
            _memory(found, volume["target"], str((volume.get("tmpfs") or {}).get("size", "")))
    for line in entry.get("tmpfs") or ():
        target, _, options = str(line).partition(":")
        _memory(found, target, dict(each.partition("=")[::2] for each in options.split(",")).get("size", ""))
    if size := entry.get("shm_size"):
        _memory(found, "/dev/shm", str(size))
    _secrets(found, entry.get("secrets") or ())
    return found


def exported(project: Project, volume: Mapping[str, Any]) -> bool:
    """Whether a mounted path of this machine can be had in a cluster: configuration of the project."""
    source = Path(volume["source"])
    data = project.root / "backups"
    return source.is_relative_to(project.root) and not source.is_relative_to(data)


def _volume(found: Files, project: Project, name: str, volume: Mapping[str, Any], read_only: bool) -> None:
    source = volume.get("source", "")
    if source == routes.VOLUME and name in project.rendered:
        contents = {file: (text.encode(), False) for file, text in project.rendered[name].items()}
        _config(found, f"{routes.VOLUME}-{name}", contents, volume["target"])
        return
    if source == RELEASES:
        kept = {"secret": {"secretName": store.SECRET, "optional": True}}
        found.add(object_name(RELEASES), volume["target"], kept, True)
        return
    key = object_name(source) if source else f"scratch-{len(found.volumes)}"
    if source:
        found.claimed[source] = key
    found.add(key, volume["target"], None if source else {"emptyDir": {}}, read_only)


def _folder(found: Files, project: Project, source: Path, target: str) -> None:
    if source.is_relative_to(project.secrets):
        secret = object_name(source.name)
        files = secret_files(source)
        body: Manifest = {"secretName": secret, "defaultMode": 0o444}
        if any(key != path for key, path in files.items()):
            # Whoever names some gets no other.
            body["items"] = [{"key": key, "path": path} for key, path in files.items()]
        found.add(f"{secret}-files", target, {"secret": body}, True)
        return
    contents = configuration.files(project.root, source)
    _config(found, project.name(source), contents, target, source.name if source.is_file() else "")


def secret_files(folder: Path) -> dict[str, str]:
    """The files of a folder of secrets, by their key in the Secret that holds them."""
    if folder.name == TLS:
        return TLS_FILES
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    shown = [path.relative_to(folder) for path in paths]
    names = [path.as_posix() for path in shown if not any(part.startswith(".") for part in path.parts)]
    return {configuration.key(name): name for name in names}


def _config(found: Files, name: str, contents: Mapping[str, tuple[bytes, bool]], target: str, file: str = "") -> None:
    config = configuration.config_map(name, {path: content for path, (content, _) in contents.items()})
    found.configs.append(config)
    found.add(object_name(name), target, configuration.mounted(config, contents), True, file)


def _memory(found: Files, target: str, size: str) -> None:
    limit = {"sizeLimit": quantity(amount(size))} if size else {}
    found.add(
        f"memory-{object_name(target)}",
        target,
        {"emptyDir": {"medium": "Memory", **limit}},
    )


def _secrets(found: Files, wanted: Sequence[Mapping[str, Any]]) -> None:
    """All of a service's secrets as files of one folder, as Compose shows them; others where it says."""
    sources = []
    for each in wanted:
        target = each.get("target") or f"{SECRETS}/{each['source']}"
        folder, _, file = target.rpartition("/")
        if folder in {SECRETS, ""}:
            sources.append(
                {"secret": {"name": object_name(each["source"]), "items": [{"key": each["source"], "path": file}]}}
            )
        else:
            secret = {"secretName": object_name(each["source"]), "defaultMode": 0o444}
            found.add(f"secret-{object_name(each['source'])}", target, {"secret": secret}, True, each["source"])
    if sources:
        found.add("secrets", SECRETS, {"projected": {"defaultMode": 0o444, "sources": sources}}, True)


def shared(stack: Stack, names: Sequence[str]) -> set[str]:
    """Volumes that pods of some services use at once, on several nodes."""
    users: dict[str, set[str]] = {}
    for name in names:
        service = stack.services[name]
        # Where it is, whoever is beside it is too.
        place = service.labels.get(labels.BESIDE) or name
        for volume in set(service.volumes):
            users.setdefault(volume, set()).update({place, f"{name} (another)"} if _several(service) else {place})
    return {volume for volume, places in users.items() if len(places) > 1}


def _several(service: Any) -> bool:
    alone = service.data or service.restarts or labels.BESIDE in service.labels
    return bool(service.replicas > 1 or not alone)


def claims(asked: Claims, volumes: Mapping[str, str], shared_volumes: set[str]) -> Iterator[Manifest]:
    """Claims by themselves, which stay when the workload goes."""
    for volume, name in volumes.items():
        yield made("PersistentVolumeClaim", name, spec=asked.spec(volume, volume in shared_volumes))
