"""Files as they are taken down, packed and compared."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from ops.base.errors import OpsError
from ops.recovery import volumes
from ops.recovery.volumes import Inventory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "volumes" / "uploads"
    (root / "one" / "two").mkdir(parents=True)
    (root / "one" / "a.txt").write_text("eight by")
    (root / "one" / "two" / "ünïcode \udcff").write_bytes(b"\0" * 3000)
    (root / "empty").mkdir(mode=0o700)
    (root / "link").symlink_to("one/a.txt")
    return root


def packed(folder: Path) -> io.BytesIO:
    """The folder as restic hands one out: a tar of paths from the root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, "volumes/uploads")
    buffer.seek(0)
    return buffer


def test_what_is_read_back_is_what_was_there(folder: Path) -> None:
    taken, _ = volumes.take_down(folder)
    assert taken.counts == {"files": 2, "bytes": 3008}
    assert set(taken.files) == {"one", "one/a.txt", "one/two", "one/two/ünïcode \udcff", "empty", "link"}
    assert list(volumes.differences(taken, volumes.of_tar(packed(folder), "/volumes/uploads"))) == []
    assert volumes.decode(volumes.encode(taken)) == taken


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "one/a.txt").write_text("eight bY"), "one/a.txt has another content"),
        (lambda root: (root / "one/a.txt").write_text("more"), "one/a.txt has another size"),
        (lambda root: (root / "one/a.txt").unlink(), "one/a.txt is missing"),
        (lambda root: (root / "new").write_text(""), "new was not there"),
        (lambda root: (root / "empty").chmod(0o755), "empty has another mode"),
        (lambda root: ((root / "link").unlink(), (root / "link").symlink_to("one")), "link has another content"),
        (lambda root: ((root / "link").unlink(), (root / "link").mkdir()), "link has another kind"),
        (lambda root: os.chown(root / "one/a.txt", 10001, 10001), "one/a.txt has another owner"),
    ],
)
def test_what_differs_is_named(folder: Path, damage, words: str) -> None:
    taken, _ = volumes.take_down(folder)
    try:
        damage(folder)
    except PermissionError:
        pytest.skip("only root gives files away")
    assert list(volumes.differences(taken, volumes.of_tar(packed(folder), "volumes/uploads"))) == [words]


def test_what_changes_while_it_is_saved_is_not_compared(folder: Path) -> None:
    taken, states = volumes.take_down(folder)
    saved = packed(folder)
    (folder / "one/a.txt").write_text("other by")
    (folder / "new").write_text("x")
    (folder / "empty").rmdir()
    settled = volumes.settled(folder, taken, states)
    assert settled.changing == ("empty", "new", "one/a.txt")
    assert list(volumes.differences(settled, volumes.of_tar(saved, "volumes/uploads"))) == []


def test_files_that_a_restore_put_aside_are_left_out(folder: Path) -> None:
    (folder / ".restore-1").mkdir()
    (folder / ".restore-1/old").write_text("x")
    assert not any("restore" in name for name in volumes.take_down(folder)[0].files)


def test_pipes_and_sockets_hold_no_data(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    taken, states = volumes.take_down(folder)
    assert "pipe" not in taken.files
    assert volumes.settled(folder, taken, states).changing == ()


def test_a_damaged_inventory_is_an_error() -> None:
    text = volumes.encode(Inventory())
    for damaged in (b"", text[:-5], b"[]\n", text + b"[1]\n"):
        with pytest.raises(OpsError):
            volumes.decode(damaged)


def test_only_folders_are_volumes(tmp_path: Path) -> None:
    assert volumes.mounted(tmp_path / "nothing") == []
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_text("")
    assert volumes.mounted(tmp_path) == ["a", "b"]
