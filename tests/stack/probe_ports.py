"""Runs inside a container's network: which ports listen there, or which of some addresses can be connected to.

`probe_ports.py listening` prints [[address, port], …] of this network namespace. `probe_ports.py connect SECONDS` reads
such a list from standard input and prints those that accept a connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
from pathlib import Path

LISTEN = "0A"


def listening() -> list[tuple[str, int]]:
    """TCP sockets that listen, from /proc/net: addresses there are words in the byte order of the processor."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTEN:
                address, port = local.split(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                ip = ipaddress.ip_address(b"".join(words))
                found.add((str(getattr(ip, "ipv4_mapped", None) or ip), int(port, 16)))
    return sorted(found)


async def connects(address: str, port: int, seconds: float) -> bool:
    """Whether a TCP connection is accepted."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), seconds)
    except (TimeoutError, OSError):
        return False
    writer.close()
    return True


async def reachable(targets: list[tuple[str, int]], seconds: float) -> list[tuple[str, int]]:
    """Those of `targets` that accept a connection."""
    answers = await asyncio.gather(*(connects(address, port, seconds) for address, port in targets))
    return [target for target, answer in zip(targets, answers, strict=True) if answer]


if __name__ == "__main__":
    if sys.argv[1] == "listening":
        print(json.dumps(listening()))
    else:
        print(json.dumps(asyncio.run(reachable(json.load(sys.stdin), float(sys.argv[2])))))
