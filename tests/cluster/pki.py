"""Keys, certificates and kubeconfigs of a test cluster, made with openssl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.lab import Lab, run

DAYS = "30"
SERVER_NAMES = (
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
    "DNS:localhost",
    "IP:10.96.0.1",
    "IP:127.0.0.1",
)
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def authority(lab: Lab) -> None:
    """Make the cluster's certificate authority, and what the programs of the control plane identify themselves with."""
    lab.pki.mkdir(parents=True, mode=0o700)
    ca = lab.pki / "ca"
    run(
        "openssl", "req", "-x509", *CURVE, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", "/CN=ca", "-days", DAYS
    )
    certificate(lab, "apiserver", "/CN=kube-apiserver", "serverAuth", [*SERVER_NAMES, f"IP:{lab.server}"])
    certificate(lab, "apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet", "clientAuth")
    client(lab, "admin", "/O=system:masters/CN=admin")
    for program in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        client(lab, program, f"/CN=system:{program}")
    run("openssl", "genrsa", "-out", lab.pki / "accounts.key", "2048")
    run("openssl", "rsa", "-in", lab.pki / "accounts.key", "-pubout", "-out", lab.pki / "accounts.pub")


def node(lab: Lab, name: str) -> None:
    """Make what a node's kubelet identifies itself with, unless it has that."""
    if not (lab.pki / f"{name}.conf").is_file():
        subject = f"/CN=system:node:{name}"
        certificate(lab, f"{name}-serving", subject, "serverAuth", [f"DNS:{name}", f"IP:{lab.address(name)}"])
        client(lab, name, f"/O=system:nodes{subject}")


def certificate(lab: Lab, name: str, subject: str, usage: str, alternatives: Sequence[str] = ()) -> None:
    """Make a key, and a certificate that the cluster's authority has signed."""
    stem = lab.pki / name
    extensions = Path(f"{stem}.ext")
    names = f"\nsubjectAltName={','.join(alternatives)}" if alternatives else ""
    extensions.write_text(f"extendedKeyUsage={usage}{names}\n", encoding="utf-8")
    run("openssl", "req", *CURVE, "-keyout", f"{stem}.key", "-out", f"{stem}.csr", "-subj", subject)
    signer = ("-CA", lab.pki / "ca.crt", "-CAkey", lab.pki / "ca.key", "-CAcreateserial", "-days", DAYS)
    run("openssl", "x509", "-req", "-in", f"{stem}.csr", *signer, "-extfile", extensions, "-out", f"{stem}.crt")


def client(lab: Lab, name: str, subject: str) -> None:
    """Make a certificate of a client, and the kubeconfig that holds it."""
    certificate(lab, name, subject, "clientAuth")
    stem = lab.pki / name
    server = {"server": f"https://{lab.server}:6443", "certificate-authority": str(lab.pki / "ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "me", "user": {"client-certificate": f"{stem}.crt", "client-key": f"{stem}.key"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
        "current-context": "test",
    }
    # JSON is YAML too.
    Path(f"{stem}.conf").write_text(json.dumps(config, indent=1), encoding="utf-8")
