"""Starts a node of PostgreSQL under Patroni: patroni.yml, with what differs from node to node.

The environment names the node and gives sizes, secrets give passwords. What comes out is in memory only.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIGURATION = Path("/etc/postgresql/patroni.yml")
SECRETS = Path("/run/secrets")
MEMORY = Path("/run/patroni")
ANSWER_SECONDS = 5
# What the environment sets, by parameter of PostgreSQL.
SIZES = {
    "shared_buffers": "POSTGRES_SHARED_BUFFERS",
    "effective_cache_size": "POSTGRES_CACHE_SIZE",
    "work_mem": "POSTGRES_WORK_MEM",
    "max_connections": "POSTGRES_MAX_CONNECTIONS",
    "max_wal_size": "POSTGRES_MAX_WAL",
    "max_slot_wal_keep_size": "POSTGRES_SLOT_WAL",
}


def say(text: str) -> None:
    print(f"failover: {text}", file=sys.stderr, flush=True)


def dynamic(declared: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The configuration that all nodes share, with the sizes of the environment."""
    shared = declared["dynamic"]
    parameters = {**shared["postgresql"]["parameters"], **{name: environ[key] for name, key in SIZES.items()}}
    return {**shared, "postgresql": {**shared["postgresql"], "parameters": parameters}}


def configuration(
    declared: Mapping[str, Any], environ: Mapping[str, str], passwords: Mapping[str, str]
) -> dict[str, Any]:
    """Patroni's whole configuration for this node. passwords: by name of the secret."""
    local, node = declared["local"], environ["NODE"]
    replicator = {"username": "replicator", "password": passwords["REPLICATION_PASSWORD"]}
    superuser = {"username": environ["POSTGRES_USER"], "password": passwords["POSTGRES_PASSWORD"]}
    return {
        **local,
        "scope": scope(declared, environ),
        "name": node,
        "etcd3": {"hosts": environ["ETCD_HOSTS"]},
        "restapi": {
            **local["restapi"],
            "connect_address": f"{node}:8008",
            "authentication": {"username": "patroni", "password": passwords["PATRONI_PASSWORD"]},
        },
        "bootstrap": {**local["bootstrap"], "dcs": dynamic(declared, environ)},
        "postgresql": {
            **local["postgresql"],
            "connect_address": f"{node}:5432",
            "data_dir": environ["PGDATA"],
            "pgpass": str(MEMORY / "pgpass"),
            "authentication": {"superuser": superuser, "replication": replicator, "rewind": replicator},
        },
    }


class Etcd:
    """The few words with etcd that are needed before Patroni runs, over its JSON gateway."""

    def __init__(self, hosts: str, scope: str) -> None:
        self.hosts, self.prefix = hosts.split(","), f"/service/{scope}/"

    def get(self, key: str) -> str | None:
        """The value of a key of the cluster; None when there is none. Raises OSError when no etcd answers."""
        found = self._ask("range", {"key": _packed(self.prefix + key)}).get("kvs")
        return base64.b64decode(found[0].get("value", "")).decode() if found else None

    def put(self, key: str, value: str) -> None:
        """Set a key of the cluster. Raises OSError when no etcd answers."""
        self._ask("put", {"key": _packed(self.prefix + key), "value": _packed(value)})

    def forget(self) -> None:
        """Remove every key of the cluster. Raises OSError when no etcd answers."""
        end = self.prefix[:-1] + chr(ord(self.prefix[-1]) + 1)
        self._ask("deleterange", {"key": _packed(self.prefix), "range_end": _packed(end)})

    def _ask(self, what: str, body: Mapping[str, str]) -> dict[str, Any]:
        refused: OSError = OSError("no host")
        for host in self.hosts:
            request = urllib.request.Request(f"http://{host}/v3/kv/{what}", json.dumps(body).encode())
            try:
                with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                    return json.load(answer)
            except OSError as error:
                refused = error
        raise refused


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def fence(data: Path) -> Path:
    """The mark of an old primary, as in node.sh."""
    return data.parent / ".fenced"


def plain(data: Path) -> Path:
    """The mark of a node that has run without Patroni, as in node.sh."""
    return data.parent / ".plain"


def may_begin(node_begins: bool, data: Path) -> bool:
    """Whether this node may form the cluster when etcd knows none: with the data of a primary, or where it is to begin.

    A standby may not: its primary may have more, and is perhaps only slower to start. Neither may one that has nothing
    of this major yet, after an upgrade: the new database is where the old primary was. Nor an old primary that was put
    out of action by `invoke promote` (see node.sh).
    """
    if (data / "PG_VERSION").is_file():
        return not ((data / "standby.signal").exists() or fence(data).exists())
    return node_begins and not (data.parent / "upgraded-from").exists()


def scope(declared: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The name of the cluster in etcd. Another major is another cluster, so that the old one can be returned to."""
    return f"{declared['local']['scope']}-{environ['PG_MAJOR']}"


def wait_for_cluster(etcd: Etcd, key: str = "initialize") -> None:
    """Wait until etcd knows the cluster: `initialize` says that there is one, `leader` that somebody leads it."""
    waited = 0
    while True:
        try:
            if etcd.get(key):
                return
            reason = "no primary has formed the cluster yet"
        except OSError as error:
            reason = f"etcd does not answer ({error})"
        if waited % 30 == 0:
            say(f"waiting: {reason}")
        waited += 1
        time.sleep(1)


def join(etcd: Etcd, node_begins: bool, data: Path) -> None:
    """Wait for the cluster, or make room for a new one.

    After a time as a plain pair etcd may remember a cluster of before it, with another primary and another standby: a
    primary forgets that one, and a standby waits for somebody who leads. Raises OSError when no etcd answers.
    """
    if may_begin(node_begins, data):
        if plain(data).exists() and not etcd.get("leader"):
            say("etcd forgets what it knew before this was a plain pair")
            etcd.forget()
    else:
        wait_for_cluster(etcd, "leader" if plain(data).exists() else "initialize")
        # From here on the lease says who is the primary.
        fence(data).unlink(missing_ok=True)
    plain(data).unlink(missing_ok=True)


def share(etcd: Etcd, wanted: Mapping[str, Any]) -> None:
    """Let an existing cluster have the configuration that is declared. A pause stays: a person has ordered it."""
    try:
        held = etcd.get("config")
        if held is None:
            return
        found = json.loads(held)
        wanted = {**wanted, **{key: found[key] for key in ("pause",) if key in found}}
        if found != wanted:
            etcd.put("config", json.dumps(wanted, separators=(",", ":")))
            say("the cluster has the configuration of patroni.yml and .env now")
    except OSError as error:
        say(f"etcd does not answer ({error}): the cluster keeps the configuration it has")


def declaration() -> dict[str, Any]:
    """What patroni.yml says."""
    import yaml  # comes with Patroni, in the image

    declared: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    return declared


def write_configuration(declared: Mapping[str, Any]) -> Path:
    """Write Patroni's configuration, with today's passwords, and return its path."""
    passwords = {}
    for name in ("POSTGRES_PASSWORD", "REPLICATION_PASSWORD", "PATRONI_PASSWORD"):
        passwords[name] = (SECRETS / name).read_text(encoding="utf-8").rstrip("\r\n")
        if not passwords[name]:
            sys.exit(f"failover: secret {name} is empty; run invoke secret-init")
    target = MEMORY / "patroni.yml"
    target.touch(mode=0o600)
    # JSON is YAML, and quotes whatever a password may hold.
    target.write_text(json.dumps(configuration(declared, os.environ, passwords), indent=1), encoding="utf-8")
    return target


def reload() -> None:
    """Let the Patroni of this container read the configuration again: for a changed password."""
    write_configuration(declaration())
    os.kill(1, signal.SIGHUP)


def main() -> None:
    """Write the configuration and become Patroni."""
    declared = declaration()
    target = write_configuration(declared)
    etcd = Etcd(os.environ["ETCD_HOSTS"], scope(declared, os.environ))
    data = Path(os.environ["PGDATA"])
    try:
        join(etcd, os.environ["BEGINS"] == "true", data)
    except OSError as error:
        sys.exit(f"failover: etcd does not answer ({error})")
    share(etcd, dynamic(declared, os.environ))
    become_patroni(target)


def become_patroni(target: Path) -> None:
    """Run Patroni here. As process 1 it reaps orphans, hands signals on, and forks: the other ways to start a process,
    which newer versions of Python prefer, do not find what it runs."""
    from patroni.__main__ import main as patroni

    multiprocessing.set_start_method("fork")
    sys.argv = ["patroni", str(target)]
    patroni()


if __name__ == "__main__":
    reload() if sys.argv[1:] == ["reload"] else main()
