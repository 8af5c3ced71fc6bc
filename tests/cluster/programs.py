"""The programs of a cluster: built once, kept in a folder outside the tree, and built again when their source changes.

Kubernetes, CoreDNS and the network policy engine come from Go modules, the first process of a pod from a C file of
ours, etcd, the network plugins and the image registry from Debian, containerd from the project's own engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.images import build as images

SOURCES = Path(__file__).resolve().parent / "sources"
FOLDER = "ENTERPRISE_STACK_KUBERNETES"
"""The environment variable that names another folder to keep the programs in."""
KUBERNETES = "v1.37.2"
COREDNS = "v1.15.0"
COMMANDS = ("kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
ENGINE = Path("/opt/docker-engine/root/usr/bin")
IMAGES = "enterprise-stack"
DEBIAN = f"{IMAGES}/cluster-programs"
# A build is never what somebody waits for at this machine.
NICE = ("nice", "-n", "10")

Say = Callable[[str], None]


class Unavailable(Exception):
    """A cluster cannot be had on this machine; the text says why."""


@dataclass(frozen=True)
class Programs:
    """Where each program is."""

    bin: Path
    """Kubernetes, CoreDNS, kube-network-policies, pause, etcd and docker-registry."""
    cni: Path
    """The network plugins."""
    containerd: Path

    @property
    def kubectl(self) -> Path:
        """The command of an administrator."""
        return self.bin / "kubectl"

    @property
    def path(self) -> str:
        """PATH for what runs on a node."""
        return f"{self.bin}:{self.containerd.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def home() -> Path:
    """The folder that keeps the programs and the state of running clusters."""
    return Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "enterprise-stack" / "kubernetes")


def missing() -> str | None:
    """Why a cluster cannot run or be built here, or None."""
    if os.geteuid() != 0:
        return "nodes are made of namespaces, which takes root"
    need = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "iptables": "iptables", "runc": "runc"}
    if absent := [f"{name} (Debian: {package})" for name, package in need.items() if shutil.which(name) is None]:
        return f"not installed: {', '.join(absent)}"
    if containerd() is None:
        return "no containerd on PATH or beside the engine"
    if not built() and (absent := [name for name in ("go", "gcc", "docker") if shutil.which(name) is None]):
        return f"the programs are not built, and to build them is missing: {', '.join(absent)}"
    return None


def containerd() -> Path | None:
    """containerd of this machine, or of the engine that the project's bootstrap unpacks."""
    found = shutil.which("containerd") or shutil.which("containerd", path=str(ENGINE))
    return Path(found) if found else None


def provide(say: Say = print) -> Programs:
    """Return the programs, after building those that are missing: 12 minutes of processor time for all of them.

    Raises Unavailable when that is not possible here.
    """
    if reason := missing():
        raise Unavailable(reason)
    found = containerd()
    assert found
    folder = home()
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    with locked(folder / "build.lock"):
        for name, make in RECIPES.items():
            if not is_built(folder, name):
                say(f"{name}: building")
                make(folder)
                stamp(folder, name).write_text(source(name), encoding="utf-8")
    return Programs(folder / "bin", folder / "cni", found)


def built() -> bool:
    """Whether all programs are there and none is older than its source."""
    return all(is_built(home(), name) for name in RECIPES)


def is_built(folder: Path, name: str) -> bool:
    """Whether a recipe was finished with the source of today."""
    file = stamp(folder, name)
    return file.is_file() and file.read_text(encoding="utf-8") == source(name)


def stamp(folder: Path, name: str) -> Path:
    """Where it is kept what a recipe was last made from."""
    return folder / f"{name}.source"


def source(name: str) -> str:
    """A hash of everything that a recipe is made from."""
    digest = hashlib.sha256(f"{KUBERNETES} {COREDNS}".encode())
    root = SOURCES / name
    for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file: two runs do not build beside each other."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a step of a build and return what it printed. Raises Unavailable with its last lines when it fails."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))} failed: {images.tail(done.stderr or done.stdout)}")
    return done.stdout


def workspace(folder: Path, name: str) -> Path:
    """An empty folder to build in that holds the recipe's source."""
    work = folder / "build" / name
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(SOURCES / name, work)
    return work


def go_build(work: Path, program: Path, flags: str = "") -> None:
    """Compile the package in a folder without C, without debugging tables and without paths of this machine."""
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    run([*NICE, "go", "build", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", program, "."], work, environment)


def go_mod(go: str, version: str, replaced: Mapping[str, str]) -> str:
    """The go.mod that can build Kubernetes from modules.

    k8s.io/kubernetes requires its staging modules at v0.0.0 and replaces them by folders that its own module does not
    carry. Release v1.X.Y of Kubernetes is release v0.X.Y of each of them, so a module of ours pins them; everything
    else keeps the version that Kubernetes asks for.
    """
    pins = [f"\t{name} => {name} {staging}" for name, staging in sorted(replaced.items())]
    head = ["module cluster", "", f"go {go}", "", f"require k8s.io/kubernetes {version}", "", "replace ("]
    return "\n".join([*head, *pins, ")", ""])


def staging(text: str, version: str) -> dict[str, str]:
    """The staging modules that a go.mod of Kubernetes replaces, each with its release."""
    names = re.findall(r"^\t(k8s\.io/[a-z-]+) => \./staging/", text, re.MULTILINE)
    return dict.fromkeys(names, f"v0.{version.removeprefix('v1.')}")


def build_kubernetes(folder: Path) -> None:
    """One program that is all of Kubernetes, with a link for each name."""
    work = workspace(folder, "kubernetes")
    text = run(["go", "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}"], work, {"GOFLAGS": "-mod=mod"})
    theirs = Path(json.loads(text)["GoMod"]).read_text(encoding="utf-8")
    go = re.search(r"^go (\S+)$", theirs, re.MULTILINE)
    assert go, "a go.mod names the version of Go"
    (work / "go.mod").write_text(go_mod(go[1], KUBERNETES, staging(theirs, KUBERNETES)), encoding="utf-8")
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    # Without these a server calls itself v0.0.0, and its clients refuse it as too old.
    values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())
    go_build(work, folder / "bin" / "kube", flags)
    for name in COMMANDS:
        (folder / "bin" / name).unlink(missing_ok=True)
        (folder / "bin" / name).symlink_to("kube")


def build_coredns(folder: Path) -> None:
    """CoreDNS with the plugins that a cluster needs."""
    work = workspace(folder, "coredns")
    run(["go", "mod", "init", "cluster"], work)
    # Of the same release as Kubernetes: what has been compiled for that need not be compiled again.
    release = f"v0.{KUBERNETES.removeprefix('v1.')}"
    modules = [f"k8s.io/{name}@{release}" for name in ("api", "apimachinery", "client-go")]
    run(["go", "get", f"github.com/coredns/coredns@{COREDNS}", *modules], work, {"GOFLAGS": "-mod=mod"})
    go_build(work, folder / "bin" / "coredns")


def build_pause(folder: Path) -> None:
    """The first process of a pod: static, so that its image holds nothing else."""
    run(["gcc", "-static", "-Os", "-s", "-o", folder / "bin" / "pause", SOURCES / "pause.c"], folder)


def build_policies(folder: Path) -> None:
    """The network policy engine, as the module says in its own go.mod."""
    module = (SOURCES / "policies").read_text(encoding="utf-8").strip()
    place = folder / "build" / "policies"
    place.mkdir(parents=True, exist_ok=True)
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOBIN": str(place)}
    run([*NICE, "go", "install", "-trimpath", "-ldflags", "-s -w", module], folder, environment)
    (place / "cmd").replace(folder / "bin" / "kube-network-policies")


def build_debian(folder: Path) -> None:
    """etcd, docker-registry and the network plugins, copied out of an image with Debian's packages."""
    try:
        images.ensure_base(print, lambda: None)
        images.docker(["build", "--progress", "plain", "--tag", DEBIAN, str(SOURCES / "debian")])
        container = images.docker(["create", DEBIAN]).strip()
        try:
            for program in ("etcd", "docker-registry"):
                images.docker(["cp", "--follow-link", f"{container}:/usr/bin/{program}", str(folder / "bin" / program)])
            shutil.rmtree(folder / "cni", ignore_errors=True)
            images.docker(["cp", f"{container}:/usr/lib/cni", str(folder / "cni")])
        finally:
            images.docker(["rm", container])
    except images.BuildError as error:
        raise Unavailable(str(error)) from error


RECIPES: dict[str, Callable[[Path], None]] = {
    "pause.c": build_pause,
    "debian": build_debian,
    "kubernetes": build_kubernetes,
    "coredns": build_coredns,
    "policies": build_policies,
}
