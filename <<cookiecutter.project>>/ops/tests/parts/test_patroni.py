"""How a node of PostgreSQL starts under Patroni: infrastructure/postgres/failover.py, without Patroni."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "infrastructure/postgres/failover.py"
DECLARED = {
    "dynamic": {"ttl": 20, "postgresql": {"use_slots": True, "parameters": {"wal_level": "replica"}}},
    "local": {
        "scope": "postgres",
        "restapi": {"listen": "0.0.0.0:8008"},
        "bootstrap": {"initdb": ["data-checksums"]},
        "postgresql": {"listen": "*:5432"},
    },
}
ENVIRON = {
    "NODE": "postgres-replica",
    "ETCD_HOSTS": "etcd:2379",
    "PGDATA": "/var/lib/postgresql/18/docker",
    "PG_MAJOR": "18",
    "POSTGRES_USER": "admin",
    "POSTGRES_SHARED_BUFFERS": "512MB",
    "POSTGRES_CACHE_SIZE": "1536MB",
    "POSTGRES_WORK_MEM": "8MB",
    "POSTGRES_MAX_CONNECTIONS": "200",
    "POSTGRES_MAX_WAL": "2GB",
    "POSTGRES_SLOT_WAL": "8GB",
}
PASSWORDS = {"POSTGRES_PASSWORD": 'a"b', "REPLICATION_PASSWORD": "c: #d", "PATRONI_PASSWORD": "e"}


@pytest.fixture(scope="module")
def node() -> ModuleType:
    spec = importlib.util.spec_from_file_location("node", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Etcd:
    """Keys of a cluster; silent when `keys` is None."""

    def __init__(self, keys):
        self.keys = keys

    def get(self, key):
        if self.keys is None:
            raise OSError("no route to host")
        return self.keys.get(key)

    def put(self, key, value):
        self.keys[key] = value

    def forget(self):
        self.keys.clear()


def test_sizes_come_from_the_environment(node):
    shared = node.dynamic(DECLARED, ENVIRON)
    assert shared["ttl"] == 20
    assert shared["postgresql"]["parameters"] == {
        "wal_level": "replica",
        "shared_buffers": "512MB",
        "effective_cache_size": "1536MB",
        "work_mem": "8MB",
        "max_connections": "200",
        "max_wal_size": "2GB",
        "max_slot_wal_keep_size": "8GB",
    }
    assert DECLARED["dynamic"]["postgresql"]["parameters"] == {"wal_level": "replica"}


def test_a_node_has_its_own_name_and_addresses(node):
    made = node.configuration(DECLARED, ENVIRON, PASSWORDS)
    assert made["name"] == "postgres-replica"
    assert made["restapi"]["connect_address"] == "postgres-replica:8008"
    assert made["postgresql"]["connect_address"] == "postgres-replica:5432"
    assert made["postgresql"]["authentication"]["rewind"]["username"] == "replicator"
    assert made["bootstrap"]["dcs"] == node.dynamic(DECLARED, ENVIRON)


def test_any_password_survives(node):
    made = json.loads(json.dumps(node.configuration(DECLARED, ENVIRON, PASSWORDS)))
    assert made["postgresql"]["authentication"]["superuser"]["password"] == 'a"b'
    assert made["postgresql"]["authentication"]["replication"]["password"] == "c: #d"


@pytest.mark.parametrize(
    ("files", "begins", "may"),
    [
        ((), True, True),
        ((), False, False),
        # a primary's data, wherever it is
        (("docker/PG_VERSION",), False, True),
        # a standby's, whose primary may have more
        (("docker/PG_VERSION", "docker/standby.signal"), True, False),
        # an old primary's
        (("docker/PG_VERSION", ".fenced"), True, False),
        # an upgrade has put the data of this major elsewhere
        (("upgraded-from",), True, False),
    ],
)
def test_who_may_form_a_cluster_that_etcd_does_not_know(node, tmp_path, files, begins, may):
    data = tmp_path / "docker"
    data.mkdir()
    for name in files:
        (tmp_path / name).touch()
    assert node.may_begin(begins, data) is may


def test_an_existing_cluster_gets_what_is_declared_and_a_pause_stays(node):
    etcd = Etcd({"config": json.dumps({"ttl": 30, "pause": True, "old": 1})})
    node.share(etcd, {"ttl": 20})
    assert json.loads(etcd.keys["config"]) == {"ttl": 20, "pause": True}


@pytest.mark.parametrize("keys", [{}, None])
def test_a_new_cluster_and_a_silent_etcd_are_left_alone(node, keys, capsys):
    etcd = Etcd(keys)
    node.share(etcd, {"ttl": 20})
    assert etcd.keys == keys
    assert ("does not answer" in capsys.readouterr().err) is (keys is None)


def test_a_standby_waits_until_the_cluster_is_formed(node, monkeypatch, capsys):
    etcd, looks = Etcd(None), []

    def sleep(_seconds):
        looks.append(1)
        # "": somebody is at it
        etcd.keys = {} if len(looks) == 1 else {"initialize": ""} if len(looks) == 2 else {"initialize": "7"}

    monkeypatch.setattr(node.time, "sleep", sleep)
    node.wait_for_cluster(etcd)
    assert len(looks) == 3
    assert "etcd does not answer" in capsys.readouterr().err


def test_another_major_is_another_cluster(node):
    assert node.scope(DECLARED, ENVIRON) == "postgres-18"


@pytest.mark.parametrize(
    ("files", "keys", "left"),
    [
        # the primary of a plain pair: what etcd knew is of before
        (("docker/PG_VERSION", ".plain"), {"initialize": "7", "sync": "{}"}, {}),
        # somebody leads: that counts
        (("docker/PG_VERSION", ".plain"), {"initialize": "7", "leader": "x"}, {"initialize": "7", "leader": "x"}),
        # it was never plain: its own cluster
        (("docker/PG_VERSION",), {"initialize": "7"}, {"initialize": "7"}),
    ],
)
def test_the_primary_of_a_plain_pair_makes_room_for_a_new_cluster(node, tmp_path, files, keys, left):
    (tmp_path / "docker").mkdir()
    for name in files:
        (tmp_path / name).touch()
    etcd = Etcd(keys)
    node.join(etcd, True, tmp_path / "docker")
    assert etcd.keys == left
    assert not (tmp_path / ".plain").exists()


def test_the_standby_of_a_plain_pair_waits_for_somebody_who_leads(node, tmp_path, monkeypatch):
    (tmp_path / "docker").mkdir()
    for name in ("docker/PG_VERSION", "docker/standby.signal", ".plain"):
        (tmp_path / name).touch()
    etcd = Etcd({"initialize": "7"})
    monkeypatch.setattr(node.time, "sleep", lambda _seconds: etcd.keys.update(leader="postgres-primary"))
    node.join(etcd, True, tmp_path / "docker")
    assert etcd.keys["leader"] == "postgres-primary"


def test_a_running_node_takes_changed_passwords(node, tmp_path, monkeypatch):
    """Patroni, which is process 1, reads its configuration again; nothing restarts."""
    signals = []
    for name, value in {**PASSWORDS, "PATRONI_PASSWORD": "changed\r\n"}.items():
        (tmp_path / name).write_text(value, newline="")
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(node, "SECRETS", tmp_path)
    monkeypatch.setattr(node, "MEMORY", tmp_path)
    monkeypatch.setattr(node, "declaration", lambda: DECLARED)
    monkeypatch.setattr(node.os, "kill", lambda *arguments: signals.append(arguments))
    node.reload()
    written = json.loads((tmp_path / "patroni.yml").read_text())
    assert written["restapi"]["authentication"] == {"username": "patroni", "password": "changed"}
    assert signals == [(1, node.signal.SIGHUP)]
