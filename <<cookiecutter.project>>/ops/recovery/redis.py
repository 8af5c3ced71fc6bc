"""Redis: a snapshot over the network, and a throw-away server that loads it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.base.errors import OpsError
from ops.base.waiting import until

# As the sentinels call the primary.
_SENTINEL_NAME = "stack"

_ANSWER_SECONDS = 10.0
# For a server in this container to load a snapshot.
_LOAD_SECONDS = 600.0


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot holds. keys: in all databases, those that have expired since included."""

    node: str
    version: str
    keys: int


def save(target: Path, nodes: Sequence[str], password: str, sentinels: Sequence[str] = ()) -> Snapshot:
    """Write a snapshot of Redis to a file, of a replica when one follows. nodes: their names; which of them is the
    primary, a failover changes. sentinels: host:port of each, if there are any. Raises OpsError when no node can be
    asked, or what it sends is not a whole snapshot."""
    node = source(nodes, password, sentinels)
    said = _ask(node, password, "--rdb", str(target), timeout=None)
    keys = count(target, said)
    version = _fields(_ask(node, password, "INFO", "server")).get("redis_version", "")
    return Snapshot(node, version, keys)


def source(nodes: Sequence[str], password: str, sentinels: Sequence[str] = ()) -> str:
    """The node to copy: a replica when one follows, as a snapshot forks the server and the copied memory should not be
    the primary's. Raises OpsError when there is neither a replica that follows nor a primary."""
    seen: dict[str, Mapping[str, str]] = {}
    problems = []
    for node in nodes:
        try:
            seen[node] = _fields(_ask(node, password, "INFO", "replication"))
        except OpsError as error:
            problems.append(error.message)
    elected = _elected(password, sentinels)
    found = choose(seen, elected)
    if found is None:
        raise OpsError(
            f"Redis: no node can be copied: {'; '.join(problems) or 'no primary, and no replica that follows one'}.",
            "See: invoke health",
        )
    return found


def choose(seen: Mapping[str, Mapping[str, str]], elected: str = "") -> str | None:
    """The node to copy, by their answers to INFO replication. elected: the primary by the sentinels ("": none are
    there). A replica of another primary than that one has not heard of the failover yet."""
    for node, said in seen.items():
        follows = said.get("role") == "slave" and said.get("master_link_status") == "up"
        if follows and (not elected or said.get("master_host") == elected):
            return node
    primaries = [node for node, said in seen.items() if said.get("role") == "master"]
    if elected:
        return elected if elected in primaries else None
    return primaries[0] if len(primaries) == 1 else None


def _elected(password: str, sentinels: Sequence[str]) -> str:
    """The primary by more than half of the sentinels. Raises OpsError when they do not agree; "" when there are
    none."""
    if not sentinels:
        return ""
    votes: Counter[str] = Counter()
    for each in sentinels:
        host, _, port = each.partition(":")
        command = ("SENTINEL", "get-master-addr-by-name", _SENTINEL_NAME)
        with contextlib.suppress(OpsError):
            votes.update(_ask(host, password, *command, port=port or "26379").split()[:1])
    for node, count_ in votes.most_common(1):
        if count_ * 2 > len(sentinels):
            return node
    raise OpsError("Redis: the sentinels do not agree which node is the primary.", "See: invoke health")


def count(snapshot: Path, context: str = "") -> int:
    """The keys in a snapshot, all of which is read and compared with its checksum. context: what the server said when
    it sent the snapshot. Raises OpsError when it is not whole."""
    done = subprocess.run(["redis-check-rdb", str(snapshot)], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) keys read", done.stdout)
    if done.returncode or not found:
        reason = next((line for line in done.stdout.splitlines() if "rror" in line or "EOF" in line), context.strip())
        raise OpsError(f"Redis: the snapshot is not whole: {reason or 'it cannot be read'}.", "Run the command again.")
    return int(found[1])


def load(snapshot: Path) -> int:
    """Load a snapshot into a throw-away server in this container; how many keys it then has. Raises OpsError when it
    does not load."""
    with _server(snapshot) as socket:
        keyspace = _fields(_ask("", "", "INFO", "keyspace", socket=socket))
    return sum(int(dict(part.split("=") for part in said.split(","))["keys"]) for said in keyspace.values())


@contextlib.contextmanager
def _server(snapshot: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="redis-", ignore_cleanup_errors=True) as folder:
        socket, log = Path(folder, "socket"), Path(folder, "log")
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "dir": str(snapshot.parent),
            "dbfilename": snapshot.name,
            "save": "",
            "logfile": str(log),
            # A primary leaves out what has expired since; a replica, of nobody here, counts what the snapshot holds.
            "replicaof": "127.0.0.1 1",
        }
        argv = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:

                def loaded() -> bool:
                    if server.poll() is not None:
                        return True
                    try:
                        return _fields(_ask("", "", "INFO", "persistence", socket=socket)).get("loading") == "0"
                    except OpsError:
                        return False

                until(loaded, _LOAD_SECONDS, 0.1)
                if server.poll() is not None or not loaded():
                    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
                    raise OpsError(f"Redis does not load the snapshot: {lines[-1] if lines else 'it says nothing'}.")
                yield socket
            finally:
                server.kill()


def _ask(
    host: str,
    password: str,
    *command: str,
    port: str = "6379",
    socket: Path | None = None,
    timeout: float | None = _ANSWER_SECONDS,
) -> str:
    """What redis-cli prints. The password is in its environment, which nobody else in the container reads."""
    where = ("-s", str(socket)) if socket else ("-h", host, "-p", port)
    environment = {**os.environ, "REDISCLI_AUTH": password} if password else dict(os.environ)
    began = time.monotonic()
    try:
        done = subprocess.run(
            ["redis-cli", "--no-auth-warning", *where, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OpsError(f"Redis, {host}: no answer within {time.monotonic() - began:.0f} s.") from None
    said = (done.stderr or done.stdout).strip().splitlines()
    # It reports what the server refuses on its output, and exits with 0.
    if done.returncode or done.stdout.startswith(("ERR", "NOAUTH", "NOPERM", "WRONGPASS", "AUTH failed")):
        reason = said[-1].rstrip(". ") if said else f"exit code {done.returncode}"
        raise OpsError(f"Redis, {host or socket}: {reason}.")
    return done.stdout + done.stderr if "--rdb" in command else done.stdout


def _fields(text: str) -> dict[str, str]:
    """The fields of an answer to INFO."""
    return dict(line.rstrip("\r").split(":", 1) for line in text.splitlines() if ":" in line)
