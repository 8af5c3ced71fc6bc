"""The engine from Docker's repository, on a real Debian with a real apt; repository and engine are stand-ins.

This machine's root file system is seen through an overlay, in namespaces of its own: nothing that happens there
happens here, and `download.docker.com` is a server on that namespace's loopback.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests import machine

HOST = "download.docker.com"
PACKAGES = machine.bootstrap().DOCKER_PACKAGES
UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n'
DEBIAN = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'

# Answers as the programs of those names do, as far as bootstrap asks them.
DOCKERD = """#!/bin/sh
case "$1" in --version) echo "Docker version $(cat /usr/share/engine-version)"; exit 0;; esac
echo $$ > "$2"
touch /run/engine
sleep 600 & wait
"""
DOCKER = """#!/bin/sh
case "$1" in
  info) test -e /run/engine && cat /usr/share/engine-version;;
  compose) echo 2.40.3;;
  buildx) echo buildx 0.29.1;;
esac
"""

# $1: a folder to work in; $2: os-release; the rest is run on the machine that comes out of it, one line each.
WORLD = """
set -eu
cd "$1"
mount -t tmpfs tmpfs disk
mkdir disk/changes disk/work disk/root
mount -t overlay overlay -o lowerdir=/,upperdir=disk/changes,workdir=disk/work disk/root
cd disk/root
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount --rbind /dev dev
ip link set lo up
rm -rf usr/local/bin/docker usr/local/lib/docker usr/bin/docker usr/bin/dockerd usr/sbin/dockerd opt/docker-engine
rm -rf etc/apt/sources.list etc/apt/sources.list.d etc/os-release
cp "$2" etc/os-release
echo "127.0.0.1 localhost DOCKER_HOST_NAME" > etc/hosts
cat "$1/server.pem" >> etc/ssl/certs/ca-certificates.crt
"$PYTHON" "$1/server.py" "$PWD$1/site" "$1/server.pem" &
shift 2
for line; do echo "\\$ $line"; chroot . sh -c "$line" && code=0 || code=$?; echo "exit $code"; done
""".replace("DOCKER_HOST_NAME", HOST)

SERVER = """
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
handler.func.log_message = lambda *arguments: None
server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""

BOOTSTRAP = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bootstrap", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.DOCKER_FINGERPRINT = sys.argv[2]
sys.exit(module.main(sys.argv[3:]))
"""


def why_not() -> str:
    """What this needs and this machine lacks."""
    programs = ("apt-get", "dpkg-deb", "gpg", "ip", "unshare")
    if missing := [name for name in programs if not shutil.which(name)]:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root"
    overlay = "mount -t tmpfs t /mnt && mkdir /mnt/a /mnt/b /mnt/c && mount -t overlay o -o lowerdir=/,"
    overlay += "upperdir=/mnt/a,workdir=/mnt/b /mnt/c"
    done = subprocess.run(["unshare", "--mount", "--net", "sh", "-c", overlay], capture_output=True, text=True)
    return f"no overlay in a namespace: {done.stderr.strip()}" if done.returncode else ""


REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


def certificate(path: Path) -> None:
    """A key and a self-signed certificate for Docker's host name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))


class Repository:
    """Docker's repository as a folder: distributions, packages, and the key that signs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.keys = folder / "keys"
        self.keys.mkdir(mode=0o700)
        self.gpg("--quick-gen-key", "--passphrase", "", "Docker stand-in", "ed25519", "sign", "never")
        listing = self.gpg("--list-keys", "--with-colons").decode()
        self.fingerprint = next(line for line in listing.splitlines() if line.startswith("fpr")).split(":")[9]

    def gpg(self, *arguments: str, text: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.keys), "--batch", "--yes", *arguments]
        return subprocess.run(command, input=text, check=True, capture_output=True).stdout

    def publish(self, version: str, suites: dict[str, str]) -> None:
        """Let every suite have the packages in this version."""
        architecture = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
        arch = architecture.stdout.strip()
        for distribution, suite in suites.items():
            root = self.site / "linux" / distribution
            index = root / "dists" / suite / "stable" / f"binary-{arch}" / "Packages"
            index.parent.mkdir(parents=True, exist_ok=True)
            index.write_text("\n".join(self.package(root, name, version, arch) for name in PACKAGES))
            listing = index.relative_to(root / "dists" / suite)
            content = index.read_bytes()
            release = (
                f"Origin: Docker\nSuite: {suite}\nCodename: {suite}\nComponents: stable\nArchitectures: {arch}\n"
                f"Date: {datetime.datetime.now(datetime.UTC):%a, %d %b %Y %H:%M:%S UTC}\n"
                f"SHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} {listing}\n"
            )
            signed = self.gpg("--clearsign", text=release.encode())
            (root / "dists" / suite / "InRelease").write_bytes(signed)
            (root / "gpg").write_bytes(self.gpg("--armor", "--export"))

    def package(self, root: Path, name: str, version: str, arch: str) -> str:
        """Build a package and return its entry in the index."""
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: t <t@t>\nDescription: stand-in\n"
        )
        for path, content, mode in (
            ("DEBIAN/control", control, 0o644),
            *(
                [("usr/bin/dockerd", DOCKERD, 0o755), ("usr/share/engine-version", f"{version}\n", 0o644)]
                if name == "docker-ce"
                else []
            ),
            *([("usr/bin/docker", DOCKER, 0o755)] if name == "docker-ce-cli" else []),
        ):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
            (tree / path).chmod(mode)
        file = root / "pool" / f"{name}_{version}_{arch}.deb"
        file.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, file], check=True, capture_output=True)
        data = file.read_bytes()
        return f"{control}Filename: pool/{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("world")
    (folder / "disk").mkdir()
    (folder / "server.py").write_text(SERVER)
    (folder / "bootstrap.py").write_text(BOOTSTRAP)
    (folder / "debian").write_text(DEBIAN)
    (folder / "ubuntu").write_text(UBUNTU)
    certificate(folder / "server.pem")
    return Repository(folder)


def world(repository: Repository, distribution: str, *lines: str) -> list[str]:
    """Run lines on a machine without an engine and return what each one printed, its exit code at the end."""
    inner = ["sh", "-c", WORLD, "sh", str(repository.folder), str(repository.folder / distribution), *lines]
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", *inner],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "PYTHON": sys.executable,
            "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [part.partition("\n")[2].strip() for part in ("\n" + done.stdout).split("\n$ ")[1:]]


def bootstrap(repository: Repository, *options: str, fingerprint: str = "") -> str:
    program = repository.folder / "bootstrap.py"
    key = fingerprint or repository.fingerprint
    return f"{sys.executable} {program} '{machine.BOOTSTRAP}' {key} {' '.join(options)} 2>&1"


@pytest.mark.parametrize(("distribution", "suite"), [("debian", "bookworm"), ("ubuntu", "noble")])
def test_an_engine_is_installed_used_and_updated(repository: Repository, distribution: str, suite: str) -> None:
    repository.publish("29.0.0", {distribution: suite})
    old = shutil.copytree(repository.site, repository.folder / f"old-{distribution}")
    repository.publish("29.1.0", {distribution: suite})
    newer = shutil.move(repository.site, repository.folder / f"new-{distribution}")
    shutil.move(old, repository.site)
    site = repository.site
    install, again, source, packages, no_news, _, update, updated, none = world(
        repository,
        distribution,
        bootstrap(repository, "--engine", "--yes"),
        bootstrap(repository, "--engine", "--yes"),
        "cat /etc/apt/sources.list.d/docker.sources; stat -c %a /etc/apt/keyrings/docker.asc",
        f"dpkg-query --show --showformat '${{Package}} ' {' '.join(PACKAGES)}",
        bootstrap(repository, "--update", "--yes"),
        f"rm -r {site} && cp -r {newer} {site}",
        bootstrap(repository, "--update"),
        bootstrap(repository, "--update", "--yes"),
        bootstrap(repository, "--update", "--yes"),
    )
    assert f"add Docker's repository https://{HOST}/linux/{distribution} to apt" in install
    assert install.endswith("Docker Engine 29.0.0 (started), Compose 2.40.3, buildx 0.29.1\nexit 0")
    assert again == "Docker Engine 29.0.0 (already running), Compose 2.40.3, buildx 0.29.1\nexit 0"
    assert f"URIs: https://{HOST}/linux/{distribution}\nSuites: {suite}\n" in source and "\n644\n" in source
    assert packages.split()[: len(PACKAGES)] == sorted(PACKAGES)
    assert no_news.startswith("the engine is the newest") and no_news.endswith("exit 0")
    assert "every container on this machine stops" in update and "there is no terminal" in update
    assert update.endswith("exit 1")
    assert updated.endswith("Docker Engine 29.1.0 (started), Compose 2.40.3, buildx 0.29.1\nexit 0")
    assert none.startswith("the engine is the newest")


def test_what_is_signed_by_somebody_else_is_not_installed(repository: Repository) -> None:
    repository.publish("29.0.0", {"debian": "bookworm"})
    other = "9" * 40
    refused, source, index, tampered, installed = world(
        repository,
        "debian",
        bootstrap(repository, "--engine", "--yes", fingerprint=other),
        "ls /etc/apt/sources.list.d /etc/apt/keyrings",
        f"sed -i s/29.0.0/29.0.1/ {repository.site}/linux/debian/dists/bookworm/stable/binary-*/Packages",
        bootstrap(repository, "--engine", "--yes"),
        "dpkg-query --show docker-ce",
    )
    assert f"holds the key {repository.fingerprint}, expected {other}: not trusted" in refused
    assert refused.endswith("exit 1") and "docker" not in source
    assert index == "exit 0"
    assert "Cannot install docker-ce" in tampered and tampered.endswith("exit 1")
    assert installed.endswith("exit 1")


def test_without_the_repository_the_distribution_is_asked(repository: Repository) -> None:
    [plan] = world(repository, "ubuntu", f"rm -rf {repository.site}/linux/ubuntu; " + bootstrap(repository, "--check"))
    assert "Docker's own repository cannot be reached" in plan and "docker-compose-v2" in plan
