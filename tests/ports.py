"""Ports of this machine for tests that run side by side, in any number of processes."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below the ports that the kernel gives to outgoing connections: one of those could be taken before the stack starts.
_PORTS = range(20_000, 32_000)
_taken: set[int] = set()
# Byte N is locked by the process that was given port N, and the kernel unlocks it when that process ends. A stack
# listens long after its ports were chosen: without the lock two processes chose the same one now and then.
_claims = (Path(tempfile.gettempdir()) / f"enterprise-stack-ports-{os.getuid()}").open("ab")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that no process of tests has that still runs."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            if port in _taken or not _claimed(port) or probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        _taken.add(port)
        return port


def _claimed(port: int) -> bool:
    """Whether the port belongs to this process now."""
    try:
        fcntl.lockf(_claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True
