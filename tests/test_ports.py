"""Two processes that run tests side by side never have the same port."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from tests import ports

ROOT = Path(__file__).resolve().parent.parent
# A process that may choose among three ports, takes two, and keeps them until its input ends.
OTHER = """\
import sys
from tests import ports
ports._PORTS = [int(port) for port in sys.argv[1:]]
print(ports.free_port(), ports.free_port(), flush=True)
sys.stdin.read()
"""


def test_a_port_belongs_to_one_process_until_that_ends() -> None:
    mine, *others = (ports.free_port() for _ in range(3))
    for port in others:
        fcntl.lockf(ports._claims, fcntl.LOCK_UN, 1, port)
    command = [sys.executable, "-c", OTHER, *map(str, [mine, *others])]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        assert sorted(map(int, other.stdout.readline().split())) == sorted(others)
        assert not ports._claimed(others[0])
    assert ports._claimed(others[0])
