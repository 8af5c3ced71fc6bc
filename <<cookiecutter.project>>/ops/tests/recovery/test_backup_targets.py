"""Each kind of target, with a real server: take, list, copy, keep, and what is said when it does not work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.recovery import catalogue
from ops.recovery.catalogue import FILES, POSTGRES, RECORD, Part, Verification
from ops.recovery.repository import Damaged, Full, Repository, RepositoryError, Unreachable, WrongKey
from ops.recovery.settings import Keep, Paths, Settings, Target

pytestmark = pytest.mark.image

# The servers of tests/test_backup_image.py, with what opens them.
KEYS = Path("/keys")
PLACES = {"folder": "/small/{}", "s3": "s3:http://s3:7070/bucket/{}", "sftp": "sftp:keeper@sftp:/data/{}"}
NOON = 1795348800.0  # 2026-11-22 12:00 UTC
DAY = 86400.0


@pytest.fixture(params=PLACES)
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    """A repository at a target of each kind."""
    found = at(request.param, tmp_path)
    found.ensure()
    yield found
    # The servers are small.
    (found.settings.paths.secrets / "BACKUP_KEY").write_text("a key", encoding="utf-8")
    found.forget([each.id for each in found.snapshots()])
    found.prune()


def at(kind: str, folder: Path, name: str = "") -> Repository:
    """A repository of its own for each test."""
    paths = Paths(*(folder / each for each in ("wal", "cache", "scratch", "volumes", "secrets", "etc", "tmp")))
    for each in vars(paths).values():
        each.mkdir(exist_ok=True)
    for each in ("BACKUP_S3_KEY_ID", "BACKUP_S3_SECRET", "BACKUP_SSH_KEY"):
        shutil.copyfile(KEYS / each, paths.secrets / each)
    shutil.copyfile(KEYS / "known_hosts", paths.configuration / "known_hosts")
    (paths.secrets / "BACKUP_KEY").write_text("a key", encoding="utf-8")
    target = Target(PLACES[kind].format(name or folder.name))
    settings = Settings("prod", "acme", (target,), 30, 7, Keep(2, 0, 0), paths=paths)
    return Repository(settings, target, "backups", patience=3, lock_seconds=0)


def take(repo: Repository, day: int, previous: str = "", finish: bool = True) -> str:
    """An entry of a day, with parts made up."""
    began = NOON + day * DAY
    entry_id = catalogue.new_id(catalogue.moment(began))
    database = repo.save_output(
        ["head", "-c", "100000", "/dev/urandom"], "base.tar", catalogue.tags(entry_id, POSTGRES)
    )
    made = Part(POSTGRES, database, catalogue.INCREMENTAL if previous else catalogue.FULL, previous)
    text = repo.save_text("files", f"of day {day}", catalogue.tags(entry_id, FILES))
    files = catalogue.part(repo, FILES, text, {"day": day})
    if finish:
        entry = catalogue.make(repo.settings, entry_id, began, [made, files], ["nothing"])
        catalogue.commit(repo, entry)
    return entry_id


def proof(entry_id: str, good: bool = True) -> Verification:
    return Verification(entry_id, NOON, 1.0, good, () if good else ("a row is missing",), 0 if good else 1)


def ids(repo: Repository) -> list[str]:
    return [each.id for each in catalogue.entries(repo)]


def test_entries_are_taken_listed_copied_and_kept(repo: Repository, tmp_path: Path) -> None:
    taken = [take(repo, 0)]
    taken += [take(repo, 1, taken[0]), take(repo, 2)]
    catalogue.record(repo, proof(taken[0]))
    catalogue.record(repo, proof(taken[2], False))
    unfinished = take(repo, 3, finish=False)
    state = catalogue.read(repo)
    assert [each.id for each in state.entries] == taken and state.broken == ()
    assert [each.id for each in state.proven] == [taken[0]] and state.failed == {taken[2]}
    assert {each.tag("entry") for each in state.unfinished} == {unfinished} and len(state.unfinished) == 2
    assert state.entries[1].parts[FILES].details == {"day": 1}
    assert repo.text(state.entries[1].parts[FILES].snapshot, "/files") == "of day 1"

    other = at("folder", tmp_path, f"{tmp_path.name}-other")
    other.ensure(repo)
    # All but the entry that is damaged.
    assert catalogue.copy_missing(repo, other) == 2 * 3 + 1
    assert catalogue.copy_missing(repo, other) == 0
    copied = catalogue.read(other)
    assert [each.id for each in copied.entries] == taken[:2] and not copied.failed and not copied.unfinished
    assert other.text(copied.entries[1].parts[FILES].snapshot, "/files") == "of day 1"

    assert catalogue.remove_unfinished(repo) == 2
    # Two days: the last one is damaged, so the one before it is of the last two, and it builds on the first.
    taken.append(take(repo, 4))
    assert catalogue.remove_expired(repo, Keep(1, 0, 0)) == {taken[1], taken[2]}
    assert ids(repo) == [taken[0], taken[3]]
    assert [each.entry for each in catalogue.read(repo).verifications] == [taken[0]]
    assert repo.prune()
    repo.check("100%")


def test_a_restore_is_noted_with_its_machine(repo: Repository) -> None:
    taken = take(repo, 0)
    catalogue.note_restore(repo, taken)
    state = catalogue.read(repo)
    assert set(state.restored) == {catalogue.machine(repo.settings)} and not state.unfinished and not state.broken
    assert [each.id for each in state.entries] == [taken]


def test_a_copy_that_was_cut_off_is_completed(repo: Repository, tmp_path: Path) -> None:
    taken = take(repo, 0)
    other = at("folder", tmp_path, f"{tmp_path.name}-other")
    other.ensure(repo)
    database = next(each for each in repo.snapshots() if each.tag("part") == POSTGRES)
    repo.copy([database.id], other)
    assert ids(other) == []
    assert catalogue.copy_missing(repo, other) == 2 and ids(other) == [taken]


def test_an_entry_without_one_of_its_parts_is_none(repo: Repository) -> None:
    taken = [take(repo, day) for day in (0, 1)]
    lost = next(each for each in repo.snapshots([f"entry={taken[0]}"]) if each.tag("part") == FILES)
    repo.forget([lost.id])
    state = catalogue.read(repo)
    assert [each.id for each in state.entries] == [taken[1]]
    assert len(state.broken) == 1 and taken[0] in state.broken[0] and FILES in state.broken[0]
    with pytest.raises(Damaged, match="Nothing is removed"):
        catalogue.remove_expired(repo, Keep(1, 0, 0))
    assert catalogue.remove_unfinished(repo) == 0


def test_what_is_no_record_is_told(repo: Repository) -> None:
    taken = take(repo, 0)
    repo.save_text("entry.json", "{}", catalogue.tags("20261101T000000Z", RECORD))
    state = catalogue.read(repo)
    assert [each.id for each in state.entries] == [taken] and "20261101T000000Z" in state.broken[0]


def test_another_key_is_told(repo: Repository) -> None:
    (repo.settings.paths.secrets / "BACKUP_KEY").write_text("another", encoding="utf-8")
    with pytest.raises(WrongKey):
        repo.ensure()


def test_a_full_target_takes_no_half_entry(repo: Repository) -> None:
    taken = take(repo, 0)
    with pytest.raises(Full, match="full: "):
        repo.save_output(["head", "-c", "60000000", "/dev/urandom"], "x", catalogue.tags("20261124T000000Z", POSTGRES))
    assert ids(repo) == [taken]
    assert repo.prune()
    repo.check("100%")
    assert ids(repo) == [taken] and take(repo, 1) in ids(repo)


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_a_target_that_does_not_let_us_in_is_told(kind: str, tmp_path: Path) -> None:
    repo = at(kind, tmp_path)
    repo.ensure()
    (repo.settings.paths.secrets / "BACKUP_S3_SECRET").write_text("wrong", encoding="utf-8")
    (repo.settings.paths.secrets / "BACKUP_SSH_KEY").write_text("wrong", encoding="utf-8")
    with pytest.raises(Unreachable, match="does not let us in.*(signature|denied)"):
        repo.snapshots()


def test_an_unknown_host_is_not_trusted(tmp_path: Path) -> None:
    repo = at("sftp", tmp_path)
    for text in ("", "sftp ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"):
        (repo.settings.paths.configuration / "known_hosts").write_text(text, encoding="utf-8")
        with pytest.raises(Unreachable, match="(?i)host key"):
            repo.ensure()


def test_a_bucket_is_made(tmp_path: Path) -> None:
    repo = at("s3", tmp_path)
    settings = repo.settings
    other = Repository(settings, Target("s3:http://s3:7070/another/path"), "wal", patience=3)
    assert not other.exists()
    other.ensure()
    assert other.exists() and other.snapshots() == []


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_a_server_that_is_not_there_is_told(kind: str, tmp_path: Path) -> None:
    repo = at(kind, tmp_path)
    gone = repo.target.location.replace("s3:7070", "127.0.0.1:7070").replace("@sftp:", "@127.0.0.1:")
    with pytest.raises(Unreachable, match="refused"):
        Repository(repo.settings, Target(gone), "backups", patience=1, lock_seconds=0).snapshots()


def test_only_the_folder_of_the_user_can_be_used(tmp_path: Path) -> None:
    settings = at("sftp", tmp_path).settings
    with pytest.raises(RepositoryError, match="(?i)permission denied"):
        Repository(settings, Target("sftp:keeper@sftp:/elsewhere"), "backups", patience=3, lock_seconds=0).ensure()
    assert os.getuid() == 999
