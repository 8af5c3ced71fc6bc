"""The parts of a backup that need no container; the rest is driven against a real engine."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.data import backup, site
from ops.parts import postgres, redis
from ops.recovery import archive, contents
from ops.stack import model
from ops.stack.model import Service, Stack
from ops.stack.owned import Owned, Volume

FILES = Volume("files", "acme-dev_files", "shop")


def property_(name, value):
    return b"\xfa" + bytes([len(name)]) + name + value


START = (
    b"REDIS0012"
    + property_(b"redis-ver", b"\x058.2.9")
    + property_(b"redis-bits", b"\xc0\x40")
    + property_(b"ctime", b"\xc2" + struct.pack("<I", 1_800_000_000))
    + property_(b"short", b"\xc1\x01\x02")
    + property_(b"packed", b"\xc3\x04\x08abcd")
    + property_(b"long", b"\x41\x00" + b"x" * 256)
)
END = b"\xff" + bytes(8)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (END, (0, 0)),
        (b"\xfe\x00\xfb\x0b\x0a" + bytes(100) + END, (11, 10)),
        (b"\xf5\x03lib\xfe\x00\xfb\x0b\x00" + END, (11, 0)),
        (b"\xfe\x00\xfb\x44\xd2\x41\x00" + END, (1234, 256)),
        (b"\xfe\x00\xfb" + struct.pack(">BIBQ", 0x80, 1 << 20, 0x81, 1 << 10) + END, (1 << 20, 1 << 10)),
        (b"\xfe\x03\xfb\x0b\x0a" + END, (0, 0)),
    ],
)
def test_keys_of_a_redis_snapshot(body, expected):
    assert contents.rdb_keys(io.BytesIO(START + body)) == expected


@pytest.mark.parametrize("content", [b"", b"-NOAUTH no", START[:40], START, START + b"\xfe\x00\x01"])
def test_what_is_no_redis_snapshot(content):
    with pytest.raises(OpsError):
        contents.rdb_keys(io.BytesIO(content))


@pytest.mark.parametrize("step", [1, 7, 40, 1000])
def test_the_last_bytes_are_held_back(step):
    content = bytes(range(256)) * 3
    target = io.BytesIO()
    shortened = backup._WithoutEnd(target, 40)
    for start in range(0, len(content), step):
        shortened.write(content[start : start + step])
    assert target.getvalue() == content[:-40]
    assert shortened.held == content[-40:]


def packed(*files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, size in files:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
        folder = tarfile.TarInfo("ab")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    return buffer.getvalue()


def test_files_of_a_volume_are_counted():
    content = packed(("./ab/one", 1000), ("./two words", 24))
    assert contents.count_files(io.BytesIO(content), "files") == {"files": 2, "bytes": 1024}


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense" * 100, packed(("a", 50_000))[:-30], gzip.compress(b"x" * 5000)],
    ids=["empty", "nonsense", "cut off", "not a tar"],
)
def test_a_broken_volume_is_refused(content):
    with pytest.raises(OpsError, match="volume files could not be packed"):
        contents.count_files(io.BytesIO(content), "files")


def test_services_that_are_down_are_named(env, make_container):
    found = [make_container("postgres-primary"), make_container("rabbitmq", state="exited")]
    assert backup.running(env, found, "postgres-primary") == [found[0]]
    with pytest.raises(OpsError, match=r"rabbitmq is not running in dev") as caught:
        backup.running(env, found, "postgres-primary", "rabbitmq")
    assert caught.value.remedy == "invoke deploy --env dev"
    with pytest.raises(OpsError, match=r"rabbitmq, redis-primary are not running"):
        backup.running(env, found, "rabbitmq", "redis-primary")


def test_a_volume_is_reached_without_its_services(make_stack):
    """Their images may hold no tar, and they may not run."""
    argv = site.in_volume(make_stack(Service("nginx", "nginx:1")), FILES, "ls")
    assert argv[:3] == ["docker", "run", "--rm"]
    assert "--network" in argv
    assert "acme-dev_files:/volume:nocopy" in argv, "an empty volume would get another owner"
    assert argv[-4:] == ["sh", "nginx:1", "-c", "set -eu; ls"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("pg_dump: last built-in OID\npg_dump: error: no such database\nmore", "pg_dump: error: no such database"),
        ("sh: cannot create x: No space left on device\n", "sh: cannot create x: No space left on device"),
        ("something else\n", "something else"),
        ("", "it gave no reason"),
    ],
)
def test_the_telling_line_of_a_complaint(text, line):
    assert backup.complaint(text) == line


def test_the_monitoring_hears_of_a_good_backup(env):
    backup._note_success(env, datetime(2026, 11, 23, 14, 0, tzinfo=UTC))
    path = env.project_dir / "monitoring/node-exporter/textfile/dev/backup.prom"
    assert 'backup_last_success_timestamp_seconds{backup="stack"} 1795442400\n' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_command_that_fails_midway_is_an_error_with_its_reason():
    target = io.BytesIO()
    with pytest.raises(OpsError, match="dump: error: connection lost"):
        backup.receive(["sh", "-c", "echo data; echo 'error: connection lost' >&2; exit 1"], target, "dump")
    with pytest.raises(OpsError, match="load: error: no"):
        backup.send(["sh", "-c", "echo 'error: no' >&2; exit 1"], io.BytesIO(bytes(1 << 22)), "load")


def test_data_goes_through_whole():
    content = bytes(range(256)) * 10_000
    target = io.BytesIO()
    backup.receive(["sh", "-c", "head -c 2560000 /dev/zero"], target, "dump")
    assert target.getvalue() == bytes(2_560_000)
    said = backup.send(["sh", "-c", "sha256sum"], io.BytesIO(content), "load")
    assert said.split()[0] == hashlib.sha256(content).hexdigest()


def test_too_little_room_is_refused(env, monkeypatch, make_stack):
    folder = env.project_dir / "backups/dev"
    folder.mkdir(parents=True)
    (folder / "acme-dev-20261123T140000Z.tar").write_bytes(bytes(4096))
    free = 100 << 20
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    parts = backup.Parts(make_stack(), Owned(), None, None, None)
    backup._check_space(env, site.Host(env), folder, parts, [], [])
    free = 1 << 20
    with pytest.raises(OpsError, match=r"has 1\.0 MiB free"):
        backup._check_space(env, site.Host(env), folder, parts, [], [])


def test_nothing_is_left_when_a_service_is_down(env, monkeypatch, make_container, make_stack):
    monkeypatch.setattr(
        model, "load", lambda _env: make_stack(Service("postgres-primary", ""), Service("rabbitmq", ""))
    )
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("rabbitmq")])
    with pytest.raises(OpsError, match="PostgreSQL is not running"):
        backup.create(env)
    assert not (env.project_dir / "backups").exists()


@pytest.fixture
def backing_up(env, monkeypatch, make_container):
    """Backs up a stack of these services; what is packed of each member is its name."""
    env.values.update(POSTGRES_DB="appdb", POSTGRES_USER="admin")
    shop = {
        "labels": {"ops.database": "shop", "ops.backup": "files"},
        "secrets": [{"source": "SHOP_DB_PASSWORD"}],
        "volumes": [{"type": "volume", "source": name, "target": f"/{name}"} for name in ("files", "cache")],
    }
    volumes = {"files": {"name": "acme-dev_files"}, "cache": {"name": "acme-dev_cache"}}

    def run(*parts, present=(), databases=("appdb", "postgres"), own=True):
        services = [*map(lambda name: Service(name, f"{name}:1"), ("nginx", *parts))]
        document = {"services": {"shop": shop} if own else {}, "volumes": volumes}
        stack = Stack("acme-dev", {each.name: each for each in services}, document)
        containers = [make_container(name) for name in parts]

        def member(name, writer):
            with writer.member(name) as sink:
                sink.write(name.encode())
            writer.describe(name, {})

        monkeypatch.setattr(model, "load", lambda _env: stack)
        monkeypatch.setattr(engine, "containers", lambda _env: containers)
        monkeypatch.setattr(
            engine, "inspect", lambda names, _kind: [{"Name": each} for each in names if each in present]
        )
        monkeypatch.setattr(postgres, "primary", lambda _env, found: found[0])
        monkeypatch.setattr(backup, "_redis_source", lambda _env, found: found[0])
        monkeypatch.setattr(backup, "sql", lambda _env, _node, text, **_: (
            json.dumps(databases) if "datname" in text else "18.6"))  # fmt: skip
        monkeypatch.setattr(redis, "info", lambda *_: {"redis_version": "8.2.9"})
        monkeypatch.setattr(backup, "_definitions", lambda _broker: {"rabbitmq_version": "4.3.6"})
        monkeypatch.setattr(backup, "_check_space", lambda *_: None)
        monkeypatch.setattr(backup, "_write_postgres", lambda _env, _node, writer, _tick, own: member(
            archive.database(own) if own else backup.POSTGRES, writer))  # fmt: skip
        monkeypatch.setattr(backup, "_write_redis", lambda _node, writer, _tick: member(backup.REDIS, writer))
        monkeypatch.setattr(backup, "_write_rabbitmq", lambda _found, writer: member(backup.RABBITMQ, writer))
        monkeypatch.setattr(backup, "_write_volume", lambda _site, _stack, volume, writer, _tick: member(
            archive.volume(volume.name), writer))  # fmt: skip
        return backup.create(env)

    return run


def test_a_backup_holds_every_database_and_volume_that_is_declared(backing_up):
    result = backing_up(
        *("postgres-primary", "redis-primary", "rabbitmq"),
        present=("acme-dev_files",),
        databases=("appdb", "legacy", "postgres", "shop"),
    )
    assert list(result.counts) == [
        *("postgres.dump", "databases/shop.dump", "redis.rdb", "rabbitmq.json", "volumes/files.tar.gz")
    ]
    assert result.left_out == (
        "database legacy: no label ops.database declares it",
        "volume cache: no label ops.backup names it",
    )
    assert list(archive.verify(result.path).members) == list(result.counts)


def test_what_does_not_exist_yet_stops_no_backup(backing_up):
    result = backing_up("postgres-primary")
    assert list(result.counts) == ["postgres.dump"]
    assert result.left_out == (
        "Redis: the stack has none",
        "RabbitMQ: the stack has none",
        "database shop: it does not exist yet",
        "volume cache: no label ops.backup names it",
        "volume files: it does not exist yet",
    )


def test_a_stack_without_any_data_has_nothing_to_back_up(backing_up):
    with pytest.raises(OpsError, match="nothing to back up in dev"):
        backing_up(own=False)


def test_what_an_archive_holds_is_told_member_by_member():
    counts = {
        "postgres.dump": {"rows": {"api.items": 3, "api.more": 4}},
        "databases/shop.dump": {"rows": {"public.orders": 1}},
        "redis.rdb": {"keys": 2},
        "rabbitmq.json": {"queues": 5, "exchanges": 2},
        "uploads.tar.gz": {"files": 1, "bytes": 10},
        "volumes/files.tar.gz": {"files": 2, "bytes": 2048},
    }
    assert [line.split(maxsplit=1)[0] for line in backup.describe(counts)][:2] == ["PostgreSQL", "database"]
    text = "\n".join(backup.describe(counts))
    for words in ("7 rows in 2 tables", "database shop", "1 row in 1 table", "volume web_uploads", "volume files"):
        assert words in text


@pytest.mark.parametrize(
    ("follows", "running", "source"),
    [(True, True, "redis-replica"), (False, True, "redis-primary"), (True, False, "redis-primary")],
)
def test_redis_is_read_from_a_replica_that_runs_and_follows(env, make_container, monkeypatch, follows, running, source):
    """Its memory is copied by a snapshot; the primary's need not be."""
    state = "running" if running else "exited"
    primary, replica = make_container("redis-primary"), make_container("redis-replica", state=state)
    monkeypatch.setattr(redis, "nodes", lambda _all: [replica])
    monkeypatch.setattr(redis, "info", lambda *_: {})
    monkeypatch.setattr(redis, "follows", lambda _info: follows)
    monkeypatch.setattr(redis, "primary", lambda *_: primary)
    assert backup._redis_source(env, [primary, replica]).service == source


def test_a_replica_that_does_not_answer_is_no_source(env, make_container, monkeypatch):
    def silent(*_):
        raise OpsError("no answer")

    primary, replica = make_container("redis-primary"), make_container("redis-replica")
    monkeypatch.setattr(redis, "nodes", lambda _all: [replica])
    monkeypatch.setattr(redis, "info", silent)
    monkeypatch.setattr(redis, "primary", lambda *_: primary)
    assert backup._redis_source(env, [primary, replica]) is primary


def test_archives_are_listed_newest_first(env):
    folder = env.project_dir / "backups" / "dev"
    folder.mkdir(parents=True)
    for day in ("20261124", "20261126", "20261125"):
        (folder / f"acme-dev-{day}.tar").touch()
    (folder / "acme-dev-20261127.tar.part").touch()
    assert [path.name[9:17] for path in backup.available(env)] == ["20261126", "20261125", "20261124"]
