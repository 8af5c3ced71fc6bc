"""What makes a node of a machine: containerd, kubelet and kube-proxy, and the network between pods."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import yaml

from tests.cluster import control_plane, nodes, pki, registry
from tests.cluster.lab import Lab, run, wait_for
from tests.cluster.programs import IMAGES, Programs, Unavailable

CGROUPS = Path("/sys/fs/cgroup")
SOCKET = "/run/containerd/containerd.sock"


def up(lab: Lab, programs: Programs, node: str, others: Iterable[str]) -> None:
    """Start the programs of a node that is on, and let it and the others know where each one's pods are."""
    pki.node(lab, node)
    routes(lab, node, others)
    for path, text in files(lab, programs, node).items():
        target = Path(f"{nodes.disk(lab, node)}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    make_cgroups(lab, node)
    commands: dict[str, list[str | Path]] = {
        "containerd": [programs.containerd, "--config", "/etc/containerd/config.toml"],
        "kubelet": [
            *(programs.bin / "kubelet", "--config=/var/lib/kubelet/config.yaml"),
            *(f"--kubeconfig={lab.pki / node}.conf", f"--hostname-override={node}", f"--node-ip={lab.address(node)}"),
        ],
        "kube-proxy": [
            *(programs.bin / "kube-proxy", f"--kubeconfig={lab.pki}/kube-proxy.conf", f"--hostname-override={node}"),
            *("--cluster-cidr=10.244.0.0/16", "--proxy-mode=iptables"),
        ],
    }
    for name, command in commands.items():
        lab.begin(f"{node}-{name}", nodes.inside(lab, node, "env", f"PATH={programs.path}", *command))
        # Bound on the node only, so asked for there.
        there = nodes.inside(lab, node, "sh", "-c", f"test -S {SOCKET} && echo yes || true")
        if name == "containerd" and not wait_for(partial(run, *there), 60):
            raise Unavailable(f"containerd did not start: see {lab.logs / node}-containerd.log")


def routes(lab: Lab, node: str, others: Iterable[str]) -> None:
    """Say in the hub and on every node where the pods of a node are, and on the node where those of the others are."""
    run(*lab.in_hub("ip", "route", "replace", lab.pods(node), "via", lab.address(node)))
    for other in others:
        if other != node and nodes.is_on(lab, other):
            run(*nodes.inside(lab, other, "ip", "route", "replace", lab.pods(node), "via", lab.address(node)))
            run(*nodes.inside(lab, node, "ip", "route", "replace", lab.pods(other), "via", lab.address(other)))


def files(lab: Lab, programs: Programs, node: str) -> dict[str, str]:
    """The configuration of a node's programs, by path."""
    # Not a bridge: what pods of one node say to each other must pass where policies are enforced.
    pair = {
        "type": "ptp",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": lab.pods(node)}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [pair, portmap]}
    return {
        "/etc/cni/net.d/10-pods.conflist": json.dumps(network, indent=1),
        # Whatever registry a name means: images come from ours.
        "/etc/containerd/certs.d/_default/hosts.toml": f'[host."http://{registry.door(lab)}"]\n',
        "/etc/containerd/config.toml": containerd(programs),
        "/var/lib/kubelet/config.yaml": yaml.safe_dump(kubelet(lab, node)),
    }


def containerd(programs: Programs) -> str:
    """containerd's configuration."""
    return f"""version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "docker.io/{IMAGES}/pause:1"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "/etc/containerd/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
# Where root lacks CAP_SYS_RESOURCE, nothing may be protected from the OOM killer more than we are.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{programs.cni}"]
"""


def kubelet(lab: Lab, node: str) -> dict[str, object]:
    """The kubelet's configuration."""
    return {
        **{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"},
        "failCgroupV1": False,  # version 1 is refused by default since 1.35
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup(lab, node)}",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "address": lab.address(node),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{lab.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{lab.pki}/{node}-serving.crt",
        "tlsPrivateKeyFile": f"{lab.pki}/{node}-serving.key",
        **{"clusterDomain": "cluster.local", "clusterDNS": [control_plane.DNS], "resolvConf": "/run/resolv.conf"},
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        # The nodes share one disk, whose fill is none of theirs to judge.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }


def cgroup(lab: Lab, node: str) -> str:
    """The control group that a node's pods are in, below the root."""
    return f"{lab.hub}-{node}"


def make_cgroups(lab: Lab, node: str) -> None:
    """Make the kubelet's root group, which must be there; with version 1 in every hierarchy."""
    if (CGROUPS / "cgroup.controllers").is_file():
        (CGROUPS / cgroup(lab, node)).mkdir(exist_ok=True)
        return
    for hierarchy in CGROUPS.iterdir():
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            (hierarchy / cgroup(lab, node)).mkdir(exist_ok=True)
    for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first: no process could be put there
        value = (CGROUPS / "cpuset" / file).read_text(encoding="ascii")
        (CGROUPS / "cpuset" / cgroup(lab, node) / file).write_text(value, encoding="ascii")


def remove_cgroups(lab: Lab, node: str) -> None:
    """Remove the groups of a node that is off, the innermost first."""
    for root in [CGROUPS / cgroup(lab, node), *CGROUPS.glob(f"*/{cgroup(lab, node)}")]:
        if root.is_dir() and not root.is_symlink():
            for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            root.rmdir()
