"""The archive format, and that no damage passes."""

import hashlib
import io
import json
import random
import signal
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.base.errors import OpsError
from ops.recovery import archive

WHEN = datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC)
FACTS = archive.Facts("acme", "dev", WHEN, {"postgres": "18.6", "redis": "8.2.9", "rabbitmq": "4.3.6"})
CONTENT = {
    "postgres.dump": b"PGDMP" + bytes(range(256)) * 9,
    "redis.rdb": b"REDIS0012" + b"\0" * 500,
    "rabbitmq.json": b'{"queues": []}',
    "databases/my-blog.dump": b"PGDMP" * 100,
    "volumes/web_uploads.tar.gz": b"",
}


def write(folder, content=CONTENT, facts=FACTS):
    with archive.create(folder, facts) as writer:
        for name in content:
            with writer.member(name) as sink:
                for start in range(0, len(content[name]), 100):
                    sink.write(content[name][start : start + 100])
            writer.describe(name, {"bytes": len(content[name])})
    return folder / archive.file_name(facts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read_back(tmp_path):
    path = write(tmp_path)
    manifest = archive.verify(path)
    assert path.name == "acme-dev-20261123T140509Z.tar"
    assert path.stat().st_mode & 0o777 == 0o600
    assert manifest.facts == FACTS
    for name, content in CONTENT.items():
        assert manifest.members[name].sha256 == hashlib.sha256(content).hexdigest()
        assert manifest.counts(name) == {"bytes": len(content)}
        with archive.member(path, name) as file:
            assert file.read() == content
    assert names(tmp_path) == [path.name]


def test_it_is_a_plain_tar_that_sha256sum_can_check(tmp_path):
    path = write(tmp_path)
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_a_member_can_be_looked_into_before_the_end(tmp_path):
    with archive.create(tmp_path, FACTS) as writer:
        for name in CONTENT:
            with writer.member(name) as sink:
                sink.write(CONTENT[name])
            with writer.readable(name) as file:
                assert file.read() == CONTENT[name]
    archive.verify(tmp_path / archive.file_name(FACTS))


def refused(content):
    try:
        archive._verify(Path("memory.tar"), io.BytesIO(content))
    except OpsError:
        return True
    return False


def test_every_single_damaged_byte_is_refused(tmp_path):
    whole = write(tmp_path).read_bytes()
    chance = random.Random(20261123)
    passed = []
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << chance.randrange(8)
        if not refused(flipped):
            passed.append(position)
    assert passed == []


def test_random_damage_is_refused(tmp_path):
    whole = write(tmp_path).read_bytes()
    chance = random.Random(7)
    for _ in range(500):
        start = chance.randrange(len(whole))
        length = chance.randrange(1, 2000)
        kind = chance.choice(("cut out", "insert", "overwrite", "repeat"))
        piece = {
            "cut out": b"",
            "insert": chance.randbytes(length) + whole[start : start + length],
            "overwrite": chance.randbytes(len(whole[start : start + length])),
            "repeat": whole[start : start + length] * 2,
        }[kind]
        content = whole[:start] + piece + whole[start + length :]
        assert content == whole or refused(content), (kind, start, length)


def test_every_truncation_is_refused(tmp_path):
    whole = write(tmp_path).read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        assert refused(whole[:size]), size


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 512, b"x"])
def test_an_addition_is_refused(tmp_path, tail):
    path = write(tmp_path)
    with path.open("ab") as file:
        file.write(tail)
    with pytest.raises(archive.Damaged, match="its end"):
        archive.verify(path)


def rebuilt(path, change):
    """A tar file made of the members of another one, changed."""
    with tarfile.open(path) as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}
    change(members)
    target = path.with_name("rebuilt.tar")
    with target.open("wb") as file:
        for name, content in members.items():
            file.write(archive._header(name, len(content), WHEN) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return target


def test_rebuilding_alone_is_not_what_is_refused(tmp_path):
    archive.verify(rebuilt(write(tmp_path), lambda members: None))


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("redis.rdb"),
        lambda members: members.pop("manifest.json"),
        lambda members: members.pop("SHA256SUMS"),
        lambda members: members.update({"more.txt": b"more"}),
        lambda members: members.update({"redis.rdb": b"another snapshot"}),
        lambda members: members.update({"manifest.json": b"{}"}),
        lambda members: members.update({"manifest.json": b"[" * 5000}),
        lambda members: members.update({"manifest.json": members["manifest.json"].replace(b'"dev"', b'"prod"')}),
        lambda members: members.update({"SHA256SUMS": members["SHA256SUMS"] + b"\n"}),
    ],
)
def test_missing_extra_and_swapped_members_are_refused(tmp_path, change):
    with pytest.raises(archive.Damaged):
        archive.verify(rebuilt(write(tmp_path), change))


def test_an_archive_of_format_1_is_still_read(tmp_path):
    """As earlier versions wrote it: four members, always."""

    def earlier(members):
        content = dict(zip(archive.MEMBERS, (b"dump", b"snapshot", b"{}", b"packed"), strict=True))
        found = {name: archive.Member(len(each), hashlib.sha256(each).hexdigest()) for name, each in content.items()}
        manifest = archive._manifest_text(FACTS, found).replace(b'"format": 2', b'"format": 1')
        members.clear()
        members.update(content)
        members.update({archive.MANIFEST: manifest, archive.CHECKSUMS: archive._checksums_text(found, manifest)})

    path = rebuilt(write(tmp_path), earlier)
    manifest = archive.verify(path)
    assert archive.volumes(manifest.members) == {"web_uploads": "uploads.tar.gz"}
    assert archive.databases(manifest.members) == {}
    with archive.member(path, "uploads.tar.gz") as file:
        assert file.read() == b"packed"


def test_members_are_found_by_what_they_hold():
    assert archive.volumes(CONTENT) == {"web_uploads": "volumes/web_uploads.tar.gz"}
    assert archive.databases(CONTENT) == {"my-blog": "databases/my-blog.dump"}
    assert archive.volume("web_uploads") in CONTENT and archive.database("my-blog") in CONTENT


@pytest.mark.parametrize("name", ["postgres.dump", "../x", "volumes/../x.tar.gz", "other.txt", "databases/a b.dump"])
def test_no_other_member_is_written_and_none_twice(tmp_path, name):
    with pytest.raises(ValueError, match="not a new member"), archive.create(tmp_path, FACTS) as writer:
        with writer.member("postgres.dump"):
            pass
        with writer.member(name):
            pass


def test_a_later_format_is_told_apart_from_damage(tmp_path):
    def later(members):
        members["manifest.json"] = members["manifest.json"].replace(b'"format": 2', b'"format": 3')

    with pytest.raises(OpsError, match="format 3") as caught:
        archive.verify(rebuilt(write(tmp_path), later))
    assert not isinstance(caught.value, archive.Damaged)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 20480, json.dumps({}).encode() * 1000])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.tar"
    path.write_bytes(content)
    with pytest.raises(archive.Damaged):
        archive.verify(path)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(OpsError, match="does not exist"):
        archive.verify(tmp_path / "none.tar")
    with pytest.raises(OpsError, match="cannot be read"):
        archive.verify(tmp_path)


def test_a_failure_midway_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), archive.create(tmp_path, FACTS) as writer:
        with writer.member("postgres.dump") as sink:
            sink.write(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_an_unfinished_archive_is_not_published(tmp_path):
    with pytest.raises(ValueError, match="nothing was written"), archive.create(tmp_path, FACTS):
        pass
    assert names(tmp_path) == []


def test_an_existing_archive_is_never_replaced(tmp_path):
    before = write(tmp_path).read_bytes()
    with pytest.raises(OpsError, match="exists already"):
        write(tmp_path)
    assert (tmp_path / archive.file_name(FACTS)).read_bytes() == before


KILLED = """
import sys
from pathlib import Path
from ops.recovery import archive
from ops.tests.recovery.test_archive import FACTS
with archive.create(Path(sys.argv[1]), FACTS) as writer, writer.member("postgres.dump") as sink:
    sink.write(b"x" * 100000)
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writing(tmp_path):
    """Another process in the middle of writing an archive."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "writing\n"
    yield child
    child.kill()
    child.communicate()


def test_a_killed_writer_leaves_nothing_that_looks_like_a_backup(tmp_path, writing):
    writing.send_signal(signal.SIGKILL)
    writing.wait()
    assert list(tmp_path.glob("*.tar")) == []
    assert len(names(tmp_path)) == 1
    path = write(tmp_path)
    assert names(tmp_path) == [path.name]
