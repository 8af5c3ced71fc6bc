"""The control plane: etcd, API server, controller manager and scheduler, in the hub.

No node carries it, as where the cluster is a managed one, so any node can be killed. Without nodes it is enough for a
server-side dry run.
"""

from __future__ import annotations

import subprocess

from tests.cluster import nodes, pki
from tests.cluster.lab import Lab, wait_for
from tests.cluster.programs import Programs, Unavailable

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SERVICES = "10.96.0.0/16"
DNS = "10.96.0.10"


def up(lab: Lab, programs: Programs) -> None:
    """Start what is not running, and wait for the API server. Raises Unavailable when it does not become ready."""
    nodes.hub_up(lab)
    if not (lab.pki / "accounts.pub").is_file():
        pki.authority(lab)
    commands = {
        "etcd": etcd(lab),
        "kube-apiserver": api_server(lab),
        "kube-controller-manager": controller_manager(lab),
        "kube-scheduler": [f"--kubeconfig={lab.pki}/kube-scheduler.conf", "--leader-elect=false"],
    }
    for name in PROGRAMS:
        if lab.pid(name) is None:
            lab.begin(name, lab.in_hub(programs.bin / name, *commands[name]))
        if name == "kube-apiserver" and not wait_for(lambda: ready(lab, programs), 120, 0.3):
            raise Unavailable(f"the API server did not become ready: see {lab.logs / name}.log")


def down(lab: Lab) -> None:
    """Stop it, what was started last first."""
    for name in reversed(PROGRAMS):
        lab.end(name)


def ready(lab: Lab, programs: Programs) -> bool:
    """Whether the API server takes requests."""
    command = [str(programs.kubectl), f"--kubeconfig={lab.kubeconfig}", "get", "--raw", "/readyz"]
    return subprocess.run(command, capture_output=True).returncode == 0


def etcd(lab: Lab) -> list[str]:
    """Its options. No fsync: its disk need not outlive this machine, and others work on the same one."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        *(f"--data-dir={lab.folder / 'etcd'}", "--log-level=warn", "--unsafe-no-fsync"),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"),
    ]


def api_server(lab: Lab) -> list[str]:
    """Its options: RBAC, admission as kubeadm sets it, pod security by the labels of namespaces."""
    return [
        *("--etcd-servers=http://127.0.0.1:2379", f"--advertise-address={lab.server}", "--allow-privileged=true"),
        *(f"--service-cluster-ip-range={SERVICES}", "--authorization-mode=Node,RBAC"),
        *(f"--client-ca-file={lab.pki}/ca.crt", "--enable-admission-plugins=NodeRestriction"),
        *(f"--tls-cert-file={lab.pki}/apiserver.crt", f"--tls-private-key-file={lab.pki}/apiserver.key"),
        f"--kubelet-client-certificate={lab.pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={lab.pki}/apiserver-kubelet.key",
        *(f"--kubelet-certificate-authority={lab.pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP"),
        *("--service-account-issuer=https://kubernetes.default.svc", f"--cert-dir={lab.folder / 'apiserver'}"),
        f"--service-account-key-file={lab.pki}/accounts.pub",
        f"--service-account-signing-key-file={lab.pki}/accounts.key",
    ]


def controller_manager(lab: Lab) -> list[str]:
    """Its options. How long it waits before a silent node counts as lost is the default."""
    return [
        *(f"--kubeconfig={lab.pki}/kube-controller-manager.conf", "--leader-elect=false"),
        *(f"--service-account-private-key-file={lab.pki}/accounts.key", f"--root-ca-file={lab.pki}/ca.crt"),
        *("--use-service-account-credentials", "--allocate-node-cidrs=false"),
        f"--cert-dir={lab.folder / 'controller-manager'}",
    ]
