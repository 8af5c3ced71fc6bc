"""Places to back up to, as real servers in containers: an S3-compatible one and one that speaks SFTP.

    with targets.s3("my-stack_offsite") as place:
        project.set(BACKUP_TARGETS=place.address)

By hand, both until Enter is pressed: `python -m tests.stack.targets NETWORK` prints what a project needs to reach them.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.images import build

S3 = "versity/versitygw:v1.8.0"
SFTP = "atmoz/sftp:debian"
# Not "backup": Debian has a user of that name
USER = "keeper"
FOLDER = "store"


@dataclass(frozen=True)
class Place:
    """A server to back up to. Its container can be paused, killed, or cut off from a network, to see what then happens.

    address: an entry of BACKUP_TARGETS. secrets: what goes into the secrets of these names. known_hosts: a line.
    data: the folder in the container in which everything lies, for tests that damage it.
    """

    address: str
    container: str
    data: str
    secrets: Mapping[str, str] = field(default_factory=dict)
    known_hosts: str = ""


@contextmanager
def s3(network: str, *, megabytes: int | None = None) -> Iterator[Place]:
    """An S3-compatible server in a network, gone afterwards with all it holds. The bucket is made by who writes first.

    megabytes: how much fits on it; None for as much as the disk holds.
    """
    key, secret = f"key{secrets.token_hex(6)}", secrets.token_hex(20)
    logins = {"ROOT_ACCESS_KEY_ID": key, "ROOT_SECRET_ACCESS_KEY": secret}
    # Attributes of objects go into files of their own, because not every file system takes them.
    command = ["posix", "--sidecar", "/attributes", "/data"]
    with _server(S3, network, 7070, "/data", megabytes, command, logins, folders=["/attributes"]) as name:
        found = {"BACKUP_S3_KEY_ID": key, "BACKUP_S3_SECRET": secret}
        yield Place(f"s3:http://{name}:7070/backup", name, "/data/backup", found)


@contextmanager
def sftp(network: str, *, megabytes: int | None = None) -> Iterator[Place]:
    """A server in a network that speaks SFTP and lets in one key, gone afterwards with all it holds.

    megabytes: how much fits on it; None for as much as the disk holds.
    """
    private = Ed25519PrivateKey.generate()
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    pem = private.private_bytes(*formats).decode()
    encodings = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    data = f"/home/{USER}/{FOLDER}"
    with tempfile.TemporaryDirectory() as keys:
        (Path(keys) / "key.pub").write_bytes(private.public_key().public_bytes(*encodings) + b"\n")
        mount = [f"--volume={keys}:/home/{USER}/.ssh/keys:ro"]
        with _server(SFTP, network, 22, data, megabytes, [f"{USER}::1001::{FOLDER}"], options=mount) as name:
            host_key = _docker("exec", name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
            line = f"{name} {' '.join(host_key)}\n"
            yield Place(f"sftp:{USER}@{name}:/{FOLDER}", name, data, {"BACKUP_SSH_KEY": pem}, line)


@contextmanager
def _server(
    image: str,
    network: str,
    port: int,
    data: str,
    megabytes: int | None,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    folders: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[str]:
    """A container that serves, under a name that nobody else uses and that its network knows; its name."""
    if reason := build.provide([image], say=lambda _: None).unavailable.get(image):
        raise RuntimeError(f"{image}: {reason}")
    name = f"{image.partition(':')[0].rpartition('/')[2]}-{secrets.token_hex(4)}"
    size = f":size={megabytes}m" if megabytes else ""
    mounts = [f"--tmpfs={data}{size}"] if megabytes else [f"--volume={data}"]
    try:
        _docker(
            *("run", "--detach", "--name", name, "--network", network, *mounts, *options),
            *(f"--volume={folder}" for folder in folders),
            *(f"--env={key}={value}" for key, value in (environment or {}).items()),
            *(image, *command),
        )
        _wait(name, network, port)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)


def _wait(name: str, network: str, port: int, seconds: float = 30) -> None:
    """Wait until a container takes connections. Raises RuntimeError, with what it said, when it does not."""
    address = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection((_docker("inspect", "--format", address, name).strip(), port), 2).close()
            return
        except OSError:
            time.sleep(0.2)
    said = subprocess.run(["docker", "logs", "--tail", "20", name], capture_output=True, text=True)
    raise RuntimeError(f"{name} takes no connections on port {port}: {said.stdout}{said.stderr}")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    """Both servers in the network that is named on the command line, until Enter is pressed."""
    with s3(sys.argv[1]) as bucket, sftp(sys.argv[1]) as folder:
        for place in (bucket, folder):
            secrets_of = [f"{key}={value}" for key, value in place.secrets.items()]
            print(f"BACKUP_TARGETS={place.address}", *secrets_of, place.known_hosts, sep="\n")
        input("Press Enter to stop both.")


if __name__ == "__main__":
    main()
