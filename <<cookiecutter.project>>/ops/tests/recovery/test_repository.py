"""Repositories of restic in a folder: what is saved and found again, and what is said when that does not work.

Runs in the image of infrastructure/backup, which has restic.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.recovery.repository import (
    CommandFailed,
    Damaged,
    Full,
    Locked,
    Missing,
    Repository,
    RepositoryError,
    Unreachable,
    Unreadable,
    WrongKey,
)
from ops.recovery.settings import Keep, Paths, Settings, Target

pytestmark = pytest.mark.image

KEY = "correct horse battery staple"


def settings_in(folder: Path, *targets: str) -> Settings:
    """Settings with everything below a folder, and its own secrets."""
    paths = Paths(*(folder / name for name in ("wal", "cache", "scratch", "volumes", "secrets", "etc", "tmp")))
    for each in vars(paths).values():
        each.mkdir(exist_ok=True)
    secret = paths.secrets / "BACKUP_KEY"
    if not secret.exists():
        secret.write_text(f"{KEY}\r\n", encoding="utf-8", newline="")
    return Settings("prod", "acme", tuple(map(Target, targets)), 30, 7, Keep(7, 4, 6), paths=paths)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with one folder as their target."""
    return settings_in(tmp_path, str(tmp_path / "target"))


def opened(settings: Settings, **options: float) -> Repository:
    return Repository(settings, settings.targets[0], "backups", **{"patience": 2, "lock_seconds": 0, **options})


@pytest.fixture
def repo(settings: Settings) -> Repository:
    """A repository that exists."""
    found = opened(settings)
    found.ensure()
    return found


def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text("one", encoding="utf-8")
    (folder / "deep/b").write_bytes(random.Random(1).randbytes(200_000))
    return folder


def files(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.chmod(0o600)
    path.write_bytes(change(path.read_bytes()))


def test_a_repository_is_made_once(settings: Settings) -> None:
    repo = opened(settings)
    assert not repo.exists()
    repo.ensure()
    first = (Path(repo.location) / "config").read_bytes()
    repo.ensure()
    assert (Path(repo.location) / "config").read_bytes() == first


def test_an_empty_folder_does_not_take_the_place_of_a_repository(settings: Settings) -> None:
    """A disk that is not mounted: what is under it is empty."""
    repo = opened(settings)
    repo.ensure()
    # It is there: nothing is given up.
    repo.give_up_lost()
    shutil.rmtree(repo.location)
    for _ in range(2):
        with pytest.raises(Missing, match="is gone; there was one before"):
            repo.ensure()
    repo.give_up_lost()
    repo.ensure()
    assert repo.exists()


def test_saved_files_come_back(repo: Repository, tmp_path: Path) -> None:
    folder = source(tmp_path)
    saved = repo.save_paths([folder], ["entry=1", "part=files"])
    (found,) = repo.snapshots(["part=files"])
    assert found.id == saved and found.tag("entry") == "1" and found.paths == (str(folder),) and found.size == 200_003
    repo.restore(saved, tmp_path / "out", folder=str(folder))
    assert (tmp_path / "out/deep/b").read_bytes() == (folder / "deep/b").read_bytes()
    repo.restore(saved, tmp_path / "some", include=[f"{folder}/a"])
    assert [each.name for each in files(tmp_path / "some")] == ["a"]


def test_the_output_of_a_command_is_saved_and_its_failure_is_not(repo: Repository) -> None:
    saved = repo.save_output(["sh", "-c", "echo $GREETING; echo progress >&2"], "base.tar", ["a=1"], {"GREETING": "hi"})
    assert repo.text(saved, "/base.tar") == "hi\n"
    with pytest.raises(CommandFailed, match=r"exit status 3.*no primary"):
        repo.save_output(["sh", "-c", "echo half; echo no primary >&2; exit 3"], "base.tar", ["a=2"])
    with pytest.raises(CommandFailed):
        repo.save_output(["no-such-program"], "base.tar", ["a=2"])
    assert [each.id for each in repo.snapshots()] == [saved]
    with pytest.raises(CommandFailed, match="wrote nothing"):
        repo.save_output(["true"], "base.tar", ["a=2"])


def test_a_text_is_saved(repo: Repository) -> None:
    text = '{"naïve": "Ω"}' * 10_000
    assert repo.text(repo.save_text("entry.json", text, ["x"]), "/entry.json") == text


def test_a_folder_is_dumped_with_its_owners(repo: Repository, tmp_path: Path) -> None:
    folder = source(tmp_path)
    (folder / "a").chmod(0o640)
    saved, sink = repo.save_paths([folder], []), io.BytesIO()
    repo.dump(saved, str(folder), sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as archive:
        found = {each.name.rsplit("/", 1)[-1]: each for each in archive}
    assert found["a"].mode == 0o640 and found["a"].uid == os.getuid()


def test_copies_keep_tags_and_times_and_are_made_once(repo: Repository, settings: Settings, tmp_path: Path) -> None:
    other = Repository(settings, Target(str(tmp_path / "other")), "backups")
    other.ensure(like=repo)
    saved = repo.save_text("a", "text", ["entry=1"])
    repo.copy([saved], other)
    repo.copy([saved], other)
    (copied,) = other.snapshots(["entry=1"])
    assert (
        copied.original == saved and copied.time == repo.snapshots()[0].time and other.text(copied.id, "/a") == "text"
    )


def test_what_is_forgotten_is_gone_and_its_space_is_free(repo: Repository, tmp_path: Path) -> None:
    big, small = (repo.save_output(["head", "-c", size, "/dev/urandom"], "x", []) for size in ("3000000", "10"))
    repo.forget([big])
    assert repo.prune()
    assert [each.id for each in repo.snapshots()] == [small]
    assert sum(each.stat().st_size for each in files(Path(repo.location) / "data")) < 100_000
    repo.check("100%")


def test_a_file_that_cannot_be_read_is_told(repo: Repository, tmp_path: Path) -> None:
    folder = source(tmp_path)
    with pytest.raises(RepositoryError, match="exist"):
        repo.save_paths([tmp_path / "nothing"], [])
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (folder / "a").chmod(0)
    with pytest.raises(Unreadable, match=r"source/a.*permission denied") as caught:
        repo.save_paths([folder], ["x"])
    assert caught.value.snapshot == repo.snapshots(["x"])[0].id


def test_another_key_is_told(repo: Repository, settings: Settings) -> None:
    (settings.paths.secrets / "BACKUP_KEY").write_text("another", encoding="utf-8")
    for act in (repo.exists, repo.ensure, repo.snapshots, lambda: repo.save_text("a", "b", [])):
        with pytest.raises(WrongKey, match="another key"):
            act()


def test_no_repository_is_told(settings: Settings) -> None:
    with pytest.raises(Missing, match="no backup repository"):
        opened(settings).snapshots()


def test_a_folder_that_cannot_be_written_is_told(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a file", encoding="utf-8")
    with pytest.raises(RepositoryError, match="not a directory"):
        opened(settings).ensure()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("s3:http://127.0.0.1:1/bucket/path", "connection refused"),
        ("sftp:user@127.0.0.1:/path", "refused|reset|closed|verification failed|denied|not found"),
        ("s3:http://nowhere.invalid/bucket/path", "no such host|lookup|timeout|misbehaving"),
    ],
)
def test_a_target_out_of_reach_is_told_soon(tmp_path: Path, location: str, words: str) -> None:
    settings = settings_in(tmp_path, location)
    (settings.paths.secrets / "BACKUP_S3_KEY_ID").write_text("id", encoding="utf-8")
    (settings.paths.secrets / "BACKUP_S3_SECRET").write_text("secret", encoding="utf-8")
    (settings.paths.secrets / "BACKUP_SSH_KEY").write_text("no key", encoding="utf-8")
    began = time.monotonic()
    for act in (opened(settings).snapshots, opened(settings).ensure):
        with pytest.raises(Unreachable, match=words):
            act()
    assert time.monotonic() - began < 60


def test_damaged_data_is_never_given_out(repo: Repository, settings: Settings, tmp_path: Path) -> None:
    folder = source(tmp_path)
    saved = repo.save_paths([folder], [])
    pristine = tmp_path / "pristine"
    shutil.copytree(repo.location, pristine)
    for number, (part, change) in enumerate(
        (part, change)
        for part in ("data", "index", "snapshots", "keys", "config")
        for change in (
            lambda data: bytes([*data[: len(data) // 2], data[len(data) // 2] ^ 1, *data[len(data) // 2 + 1 :]]),
            lambda data: data[: len(data) // 2],
            lambda _: b"",
        )
    ):
        shutil.rmtree(repo.location)
        shutil.copytree(pristine, repo.location)
        shutil.rmtree(settings.paths.cache)
        place = Path(repo.location) / part
        damage(max(files(place), key=lambda each: each.stat().st_size) if place.is_dir() else place, change)
        with pytest.raises(RepositoryError) as caught:
            repo.restore(saved, tmp_path / f"out{number}", folder=str(folder))
            repo.check("100%")
        assert isinstance(caught.value, Damaged), (part, number, caught.value.message)
    shutil.rmtree(repo.location)
    shutil.copytree(pristine, repo.location)
    shutil.rmtree(settings.paths.cache)
    for each in files(Path(repo.location) / "data"):
        each.unlink()
    with pytest.raises(Damaged):
        repo.restore(saved, tmp_path / "out", folder=str(folder))


def test_damaged_data_is_stored_again_after_a_repair(repo: Repository, settings: Settings, tmp_path: Path) -> None:
    folder = source(tmp_path)
    repo.save_paths([folder], ["a=1"])
    packs = sorted(files(Path(repo.location) / "data"), key=lambda each: each.stat().st_size)
    for each in packs:
        damage(each, lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:])
    # Without one, what is saved next relies on what is there.
    relying = repo.save_paths([folder], ["a=2"])
    shutil.rmtree(settings.paths.cache)
    with pytest.raises(Damaged):
        repo.restore(relying, tmp_path / "first", folder=str(folder))
    work = tmp_path / "work"
    work.mkdir()
    assert sorted(repo.repair(work)) == sorted(each.name for each in packs)
    again = repo.save_paths([folder], ["a=3"])
    repo.restore(again, tmp_path / "second", folder=str(folder))
    for each in files(folder):
        assert (tmp_path / "second" / each.relative_to(folder)).read_bytes() == each.read_bytes()
    assert repo.repair(work) == []


def test_a_lost_pack_and_a_damaged_index_are_repaired(repo: Repository, settings: Settings, tmp_path: Path) -> None:
    folder = source(tmp_path)
    repo.save_paths([folder], ["a=1"])
    max(files(Path(repo.location) / "data"), key=lambda each: each.stat().st_size).unlink()
    damage(files(Path(repo.location) / "index")[0], lambda content: content[:50])
    shutil.rmtree(settings.paths.cache)
    work = tmp_path / "work"
    work.mkdir()
    repo.repair(work)
    again = repo.save_paths([folder], ["a=2"])
    repo.restore(again, tmp_path / "back", folder=str(folder))
    assert (tmp_path / "back/deep/b").read_bytes() == (folder / "deep/b").read_bytes()


def test_one_damaged_snapshot_does_not_hide_the_others(repo: Repository, settings: Settings) -> None:
    kept, lost = repo.save_text("a", "1", ["a"]), repo.save_text("a", "2", ["a"])
    damage(Path(repo.location) / "snapshots" / lost, lambda data: data[:10])
    shutil.rmtree(settings.paths.cache)
    found = repo.listing(["a"])
    assert [each.id for each in found.snapshots] == [kept]
    assert len(found.unreadable) == 1 and lost[:8] in found.unreadable[0]


def killed(repo: Repository, command: str, seconds: float = 3) -> None:
    """A run in another process, killed with all that it started."""
    program = (
        "import sys; sys.path.insert(0, '.'); from ops.tests.recovery.test_repository import *;"
        f"s = settings_in(Path(sys.argv[1]), sys.argv[2]); r = opened(s); {command}"
    )
    root = repo.settings.paths.wal.parent
    child = subprocess.Popen([sys.executable, "-c", program, root, repo.target.location], start_new_session=True)
    time.sleep(seconds)
    for pid in [*descendants(child.pid), child.pid]:
        os.kill(pid, signal.SIGKILL)
    child.wait()


def descendants(pid: int) -> list[int]:
    # Any thread may have started them.
    found = [int(each) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for each in tasks.read_text().split()]
    return [*found, *(below for each in found for below in descendants(each))]


def test_the_lock_of_a_killed_run_is_removed(repo: Repository) -> None:
    killed(repo, "r.save_output(['sleep', '60'], 'x', [])")
    assert len(files(Path(repo.location) / "locks")) == 1
    assert repo.prune()
    assert files(Path(repo.location) / "locks") == []


def test_the_lock_of_a_run_that_lives_is_respected(repo: Repository) -> None:
    thread = threading.Thread(target=lambda: repo.save_output(["sh", "-c", "sleep 6; echo x"], "x", []))
    thread.start()
    while not files(Path(repo.location) / "locks"):
        time.sleep(0.05)
    with pytest.raises(Locked, match="in use"):
        repo.prune()
    assert opened(repo.settings, lock_seconds=30).prune()
    thread.join()
    assert len(repo.snapshots()) == 1


def test_a_sink_that_breaks_leaves_nothing_behind(repo: Repository) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    saved = repo.save_output(["head", "-c", "5000000", "/dev/urandom"], "x", [])
    with pytest.raises(OSError):
        repo.dump(saved, "/x", Broken())
    assert files(Path(repo.location) / "locks") == [] and list(repo.settings.paths.memory.iterdir()) == []


def test_a_prune_ends_in_time(repo: Repository) -> None:
    assert not repo.prune(seconds=0.05)
    assert repo.prune() and files(Path(repo.location) / "locks") == []


def test_keys_are_on_no_command_line_and_in_no_environment(
    repo: Repository, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"BACKUP_S3_KEY_ID": "the-id", "BACKUP_S3_SECRET": "the-secret", "BACKUP_SSH_KEY": "the-ssh-key"}
    for name, value in secrets.items():
        (settings.paths.secrets / name).write_text(value, encoding="utf-8")
    monkeypatch.setenv("PARENT", "x")
    script = "tr '\\0' '\\n' < /proc/$PPID/cmdline; tr '\\0' '\\n' < /proc/$PPID/environ; env"
    text = repo.text(repo.save_output(["sh", "-c", script], "seen", []), "/seen")
    assert "--stdin-from-command" in text and "RESTIC_PASSWORD_FILE" in text
    for value in (KEY, *secrets.values()):
        assert value not in text
    assert list(settings.paths.memory.iterdir()) == []


def test_full_is_told_and_what_was_complete_stays(tmp_path: Path) -> None:
    small = os.environ.get("SMALL_FOLDER")
    if not small:
        pytest.skip("needs SMALL_FOLDER, a file system of 16 MiB that may be filled")
    settings = settings_in(tmp_path, f"{small}/target")
    repo = opened(settings)
    repo.ensure()
    saved = repo.save_text("a", "text", [])
    with pytest.raises(Full, match="full.*no space left"):
        repo.save_output(["head", "-c", "40000000", "/dev/urandom"], "x", ["x"])
    assert [each.id for each in repo.snapshots()] == [saved] and repo.prune()
    repo.check("100%")
