"""A cluster as tests and people use it: start, ask, hurt, stop."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from tests.cluster import control_plane, nodes, programs, registry, workers
from tests.cluster.lab import Lab, run, wait_for
from tests.cluster.programs import Programs, Unavailable

MANIFESTS = Path(__file__).resolve().parent / "manifests"
VOLUMES = 32
# The one volume that can be full: in memory, and smaller than the others, so that a claim of its size gets it.
SMALL, SMALL_GIB = "small", 2
SECONDS_TO_READY = 240


@dataclass
class Cluster:
    """A cluster and its programs. Everything that is called `node` is a name: n1, n2, n3."""

    lab: Lab = field(default_factory=Lab)
    programs: Programs = field(default_factory=programs.provide)

    # ---- up and down

    def start(self, count: int = 3, say: Callable[[str], None] = print) -> None:
        """Start what is not running: the control plane, and with count > 0 as many nodes, DNS, volumes and a registry.

        Raises Unavailable when a part does not start, with where its log is.
        """
        control_plane.up(self.lab, self.programs)
        say(f"control plane: https://{self.lab.server}:6443, KUBECONFIG={self.lab.kubeconfig}")
        if not count:
            return
        registry.up(self.lab, self.programs)
        self.provide_images()
        self._mount_small()
        for node in map(self.lab.node, range(1, count + 1)):
            if not nodes.is_on(self.lab, node):
                self.power_on(node)
        self.apply((MANIFESTS / "coredns.yaml").read_text(encoding="utf-8"))
        self.apply(yaml.safe_dump_all(self.volumes()))
        self.wait_ready()
        self.kubectl("-n", "kube-system", "rollout", "status", "daemonset/coredns", f"--timeout={SECONDS_TO_READY}s")
        say(f"{count} nodes ready, registry {self.lab.registry}")

    def stop(self, keep: bool = False) -> None:
        """Stop everything and remove what it has on disk. keep: leave disks, logs and the registry's store."""
        lab = self.lab
        for node in self.nodes():
            nodes.kill(lab, node)
        for name in lab.noted():
            if name != "nxdomain" and name not in control_plane.PROGRAMS:
                lab.end(name)
        control_plane.down(lab)
        nodes.hub_down(lab)
        for node in self.nodes():
            self._forget_groups(node)
        nodes.clean(lab)
        if self.volume(SMALL).is_mount():
            run("umount", self.volume(SMALL))
        if not keep:
            lab.forget()

    def nodes(self) -> list[str]:
        """The nodes that were ever started, whether they are on or not."""
        return sorted(path.name for path in (self.lab.folder / "nodes").glob("n*"))

    # ---- faults

    def power_on(self, node: str) -> None:
        """Start a node with the disk as it was."""
        # A machine that starts has no control groups of what ran before; the kubelet waits 3 s for each that it finds.
        self._forget_groups(node)
        nodes.on(self.lab, self.programs, node)
        workers.up(self.lab, self.programs, node, self.nodes())

    def power_off(self, node: str) -> None:
        """Cut the power of a node."""
        nodes.kill(self.lab, node)

    def cut(self, node: str) -> None:
        """Pull the network cable of a node."""
        nodes.cut(self.lab, node)

    def plug(self, node: str) -> None:
        """Put the network cable of a node back."""
        nodes.plug(self.lab, node)

    def on(self, node: str, *command: str) -> str:
        """Run a command on a node and return what it printed."""
        return run(*nodes.inside(self.lab, node, *command))

    def _forget_groups(self, node: str) -> None:
        # Until the kernel has let the last process go, its group cannot be removed.
        wait_for(partial(_succeeds, workers.remove_cgroups, self.lab, node), 15, 0.5)

    # ---- asking

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator and return what it printed. Raises Unavailable when it fails and may not."""
        return run(*self.command(*arguments), input=input, check=check)

    def tried(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator, whatever comes out."""
        return subprocess.run(self.command(*arguments), input=input, capture_output=True, text=True)

    def command(self, *arguments: str) -> list[str]:
        """The command line of kubectl as administrator."""
        return [str(self.programs.kubectl), f"--kubeconfig={self.lab.kubeconfig}", *arguments]

    def apply(self, manifests: str) -> None:
        """Apply manifests."""
        self.kubectl("apply", "-f", "-", input=manifests)

    def wait_ready(self, seconds: float = SECONDS_TO_READY) -> None:
        """Wait until all nodes that are on are Ready."""
        expected = {node for node in self.nodes() if nodes.is_on(self.lab, node)}

        def ready() -> bool:
            lines = self.kubectl("get", "nodes", "--no-headers", check=False).splitlines()
            return expected <= {line.split()[0] for line in lines if line.split()[1] == "Ready"}

        if not wait_for(ready, seconds, 0.5):
            raise Unavailable(f"nodes are not ready: see {self.lab.logs}\n{self.kubectl('get', 'nodes', check=False)}")

    # ---- what a cluster brings

    def push(self, images: Iterable[str]) -> None:
        """Push local images; nodes find them by the same name."""
        registry.push(self.lab, images)

    def provide_images(self) -> None:
        """Build the images of the cluster's own pods and push them."""
        for name, path in (("pause", "/pause"), ("coredns", "/coredns")):
            folder = self.lab.folder / "build" / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.programs.bin / name, folder / name)
            text = f'FROM scratch\nCOPY {name} {path}\nUSER 65535:65535\nENTRYPOINT ["{path}"]\n'
            (folder / "Dockerfile").write_text(text, encoding="utf-8")
            image = f"{programs.IMAGES}/{name}:1"
            run("docker", "build", "--quiet", "--tag", image, folder)
            self.push([image])

    def volumes(self) -> Iterator[dict[str, object]]:
        """A storage class and its volumes: folders of this machine, at hand on every node, as network storage is."""
        yield {
            **{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"},
            "metadata": {"name": "shared", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            **{"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"},
        }
        everywhere = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
        sizes = {f"volume-{number}": 10 for number in range(1, VOLUMES + 1)} | {SMALL: SMALL_GIB}
        for name, size in sizes.items():
            folder = self.volume(name)
            folder.mkdir(parents=True, exist_ok=True)
            spec = {
                **{"capacity": {"storage": f"{size}Gi"}, "accessModes": ["ReadWriteOnce", "ReadWriteMany"]},
                **{"storageClassName": "shared", "persistentVolumeReclaimPolicy": "Retain"},
                "local": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [everywhere]}},
            }
            yield {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}

    def volume(self, name: str) -> Path:
        """The folder of this machine that holds a volume."""
        return self.lab.folder / "volumes" / name

    def _mount_small(self) -> None:
        """Before a node starts: what is mounted later, nodes do not see."""
        folder = self.volume(SMALL)
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_mount():
            run("mount", "-t", "tmpfs", "-o", f"size={SMALL_GIB}g,mode=755", "tmpfs", folder)

    def recycle_volumes(self) -> None:
        """Empty the volumes that nobody claims any more, and offer them again."""
        for line in self.kubectl("get", "pv", "--no-headers", check=False).splitlines():
            name, *fields = line.split()
            if "Released" in fields:
                for path in self.volume(name).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                self.kubectl("patch", "pv", name, "--type=json", '-p=[{"op": "remove", "path": "/spec/claimRef"}]')


def _succeeds(action: Callable[..., None], *arguments: object) -> bool:
    try:
        action(*arguments)
    except OSError:
        return False
    return True
