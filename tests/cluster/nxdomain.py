"""The outer name server of the test nodes: says at once that a name does not exist. `nxdomain.py ADDRESS`

Nodes without a network outside would wait eight seconds for that answer, and a peer that is down would look like a slow
one: programs that stop while they resolve a name would be judged by the test machine.
"""

from __future__ import annotations

import contextlib
import socket
import sys


def refusal(query: bytes) -> bytes | None:
    """The answer "no such name" to a query: its id, its question, nothing else. None for what is no query."""
    if len(query) < 12:
        return None
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    return query[:2] + b"\x81\x83\x00\x01\x00\x00\x00\x00\x00\x00" + query[12 : end + 5]


def serve(address: str) -> None:
    """Answer for ever."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        # an error here is about an asker that is gone
        with contextlib.suppress(OSError):
            query, sender = server.recvfrom(4096)
            if answer := refusal(query):
                server.sendto(answer, sender)


if __name__ == "__main__":
    serve(sys.argv[1])
