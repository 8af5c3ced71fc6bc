"""`python -m stack.probe ready|live`: the health check of the images. Standard library only, so that it starts fast."""

import os
import socket
import sys


def probe(kind: str, port: int, timeout: float = 4.0) -> tuple[bool, str]:
    """Whether the service answers 200, and what it said."""
    request = f"GET /health/{kind} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.sendall(request)
            connection.settimeout(timeout)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError as error:
        return False, f"no answer on port {port}: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    return head[9:12] == b"200", body.decode(errors="replace")


def main() -> int:
    """Exit status 0 when healthy, else 1."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "ready"
    if kind not in ("ready", "live"):
        print("usage: python -m stack.probe ready|live")
        return 2
    ok, said = probe(kind, int(os.environ.get("PORT", "8000")))
    print(said)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
