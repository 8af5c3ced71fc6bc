"""Digests of mounted files: of what is declared, and of what a container has mounted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import REFUSED, OpsError
from ops.stack.model import Mount, Service
from ops.state import digests


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    folder = tmp_path / "infrastructure/postgres"
    (folder / "initdb").mkdir(parents=True)
    (folder / "primary.conf").write_text("a")
    (folder / "initdb/roles.sh").write_text("b")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_text("c")
    (folder / digests.MAINTENANCE).write_text("")
    (tmp_path / "backups/dev/repository").mkdir(parents=True)
    (tmp_path / "backups/dev/repository/pack").write_text("data, and no configuration")
    outside = tmp_path.parent / "outside.conf"
    outside.write_text("d")
    return Service(
        "postgres",
        "postgres:18",
        mounts=(
            Mount(folder, "/etc/postgresql"),
            Mount(folder / "initdb", "/docker-entrypoint-initdb.d"),
            Mount(tmp_path / "config/dev/secrets/KEY", "/run/secrets/KEY"),
            Mount(outside, "/outside"),
            Mount(tmp_path / "backups/dev/repository", "/backups"),
        ),
    )


def test_mounted_files(tmp_path: Path, make_stack, service) -> None:
    found = digests.mounted_files(make_stack(service), tmp_path)["postgres"]
    assert found == {"infrastructure/postgres/primary.conf": sha("a"), "config/dev/secrets/KEY": ""}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; another user is tested on the real engine")
def test_a_file_that_one_may_not_read(tmp_path: Path, make_stack, service) -> None:
    (tmp_path / "infrastructure/postgres/primary.conf").chmod(0)
    with pytest.raises(OpsError, match="cannot be read: permission denied"):
        digests.mounted_files(make_stack(service), tmp_path)


def test_permission_denied_is_a_sentence(tmp_path: Path, make_stack, service, monkeypatch) -> None:
    def deny(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(digests, "file_digest", deny)
    with pytest.raises(OpsError, match=r"primary\.conf cannot be read: permission denied") as caught:
        digests.mounted_files(make_stack(service), tmp_path)
    assert caught.value.code == REFUSED
    assert "Several people on one server" in caught.value.remedy


def test_a_folder_that_one_may_not_read(tmp_path: Path, make_stack, service, monkeypatch) -> None:
    def walk(folder: Path, onerror) -> list:
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return []

    monkeypatch.setattr(digests.os, "walk", walk)
    with pytest.raises(OpsError, match="infrastructure/postgres cannot be read: permission denied"):
        digests.mounted_files(make_stack(service), tmp_path)


def test_what_a_container_of_another_folder_has_mounted(tmp_path, service, make_container) -> None:
    other = tmp_path.parent / f"{tmp_path.name}-other"
    (other / "infrastructure/postgres").mkdir(parents=True)
    (other / "infrastructure/postgres/primary.conf").write_text("other")
    mounts = {"/etc/postgresql": f"{other}/infrastructure/postgres", "/run/secrets/KEY": f"{other}/gone"}
    stopped = make_container("postgres", state="exited", mounts=mounts)
    assert digests.seen_by(stopped, service, tmp_path) == {
        "infrastructure/postgres/primary.conf": sha("other"),
        "config/dev/secrets/KEY": "",
    }


def test_what_a_container_does_not_mount_it_has_not_seen(tmp_path, service, make_container) -> None:
    assert digests.seen_by(make_container("postgres"), service, tmp_path) == {}


@pytest.fixture
def running(tmp_path, make_container):
    """A container that has one file mounted, in whose place there is another one by now."""
    (tmp_path / "KEY").write_text("new")
    return make_container("postgres", mounts={"/run/secrets/KEY": str(tmp_path / "KEY")})


@pytest.mark.parametrize(
    ("said", "digest"),
    [
        (f"{sha('old')}  /run/secrets/KEY\n", sha("old")),
        ("sha256sum: not found\n", sha("new")),
        ("", sha("new")),
        (f"{sha('old')}  /etc/passwd\n", sha("new")),
        ("busy  /run/secrets/KEY\n", sha("new")),
    ],
)
def test_a_running_container_is_asked_about_single_files(tmp_path, service, running, monkeypatch, said, digest) -> None:
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: engine.Completed((), 0, said, ""))
    assert digests.seen_by(running, service, tmp_path) == {"config/dev/secrets/KEY": digest}


def test_a_container_that_does_not_answer(tmp_path, service, running, monkeypatch) -> None:
    def hang(*_args: object, **_options: object) -> None:
        raise engine.TimedOut("no answer")

    monkeypatch.setattr(engine, "exec_", hang)
    assert digests.seen_by(running, service, tmp_path) == {"config/dev/secrets/KEY": sha("new")}


def test_a_digest_cannot_be_tried_without_the_key() -> None:
    one, other = "00" * 32, "11" * 32
    assert digests.seal(one, sha("hunter2")) not in {sha("hunter2"), sha(sha("hunter2"))}
    assert digests.seal(one, sha("hunter2")) != digests.seal(other, sha("hunter2"))
    assert digests.sealed(one, {"a": "1"}) == {"a": digests.seal(one, "1")}


@pytest.mark.parametrize(
    ("now", "before", "paths"),
    [
        ({"a": "1"}, {"a": "1"}, []),
        ({"a": "1"}, {"a": "2"}, ["a"]),
        ({"a": "1", "b": "1"}, {"a": "1"}, ["b"]),
        ({}, {"b": "1", "a": "1"}, ["a", "b"]),
    ],
)
def test_what_changed(now, before, paths) -> None:
    assert digests.changed(now, before) == paths
