"""What the machine must have for a stack: addresses, address ranges, kernel settings, the CA bundle of builds.

As in preflight.py, a check judges what it is given.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ops.base.environments import Environment, relative
from ops.base.findings import FAILED, WARNING, Check
from ops.stack.model import Port, Stack

# Docker's default address pools hold 31 networks (15 of 172.17.0.0/12, 16 of 192.168.0.0/16), less those that
# overlap a route of the machine.
DEFAULT_NETWORKS = 30
# Above this share of its memory limit PostgreSQL's shared_buffers leave too little for its connections.
SHARED_BUFFERS_SHARE = 0.6
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_UNITS = {"": 8192, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def is_local(address: str) -> bool:
    """Whether an address belongs to this machine, so that a port of it can be published."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as trial:
        try:
            trial.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def check_addresses(
    env: Environment, ports: Iterable[Port], is_local: Callable[[str], bool] = is_local
) -> Iterator[Check]:
    """Addresses that ports are published on, also of those that run already: the next container must bind them too."""
    for address in sorted({port.address.strip("[]") for port in ports if port.address}):
        if not is_local(address):
            yield Check(
                "ports",
                FAILED,
                f"{address} is not an address of this machine",
                f"Correct BIND_ADDRESS in {relative(env.env_file)}; `ip -brief address` lists the addresses.",
            )


def check_ca_bundle(env: Environment) -> Iterator[Check]:
    """The CA bundle that builds are given. Not asked for when nothing is built here."""
    bundle = env.values.get("BUILD_CA_BUNDLE", "")
    if env.values.get("IMAGE_SOURCE") == "pull" or not bundle or Path(bundle).is_file():
        return
    known = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    here = next((path for path in known if Path(path).is_file()), "the path of this machine's CA bundle")
    yield Check(
        "build",
        FAILED,
        f"BUILD_CA_BUNDLE={bundle} does not exist",
        f"Set it to {here} in {relative(env.env_file)}.",
    )


def check_overcommit(env: Environment, stack: Stack, setting: Path = _OVERCOMMIT) -> Iterator[Check]:
    """Redis forks to save its data: without overcommit that fails when half of the memory is in use. Not in dev."""
    if env.name == "dev":
        return
    try:
        value = setting.read_text(encoding="ascii").strip()
    except OSError:
        return
    if value != "1" and any("redis" in service.image for service in stack.services.values()):
        yield Check(
            "kernel",
            WARNING,
            f"vm.overcommit_memory is {value}: Redis may fail to save in the background when memory is short",
            "sudo sysctl vm.overcommit_memory=1, and the same line in /etc/sysctl.d/ to keep it",
        )


def check_networks(declared: Iterable[str], existing: Iterable[str], total: int, pools: bool) -> Iterator[Check]:
    """Address ranges for the networks that do not exist yet. total: bridge networks on the engine; pools: whether its
    address pools are configured, so that their number is not known."""
    missing = set(declared) - set(existing)
    if missing and not pools and total + len(missing) > DEFAULT_NETWORKS:
        yield Check(
            "networks",
            WARNING,
            f"{len(missing)} networks are to be created beside {total}; Docker's default address pools hold about"
            f" {DEFAULT_NETWORKS}",
            "Remove networks that nothing uses (docker network prune), or use docker-compose.subnets.yml.",
        )


def size(text: str) -> int:
    """Bytes of a size as PostgreSQL writes it: "512MB"; a bare number counts blocks of 8 KiB. 0 for anything else."""
    match = re.fullmatch(r"(\d+)(B|kB|MB|GB)?", text.strip())
    return int(match[1]) * _UNITS[match[2] or ""] if match else 0


def check_shared_buffers(env: Environment, limits: Mapping[str, int]) -> Iterator[Check]:
    """PostgreSQL's shared_buffers against the memory limit of its nodes, in bytes by service."""
    buffers = size(env.values.get("POSTGRES_SHARED_BUFFERS", ""))
    limit = min((value for value in limits.values() if value), default=0)
    if not (buffers and limit) or buffers <= limit * SHARED_BUFFERS_SHARE:
        return
    yield Check(
        "postgres memory",
        FAILED if buffers >= limit else WARNING,
        f"POSTGRES_SHARED_BUFFERS={env.values['POSTGRES_SHARED_BUFFERS']} of a limit of {limit >> 20} MB",
        f"Set it to a quarter of POSTGRES_MEMORY in {relative(env.env_file)}.",
    )
