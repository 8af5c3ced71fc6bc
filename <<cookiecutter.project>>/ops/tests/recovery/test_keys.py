"""The key of backups is changed in every repository, and what was saved stays readable. restic itself, on folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.recovery import keys
from ops.recovery.repository import Repository, WrongKey
from ops.recovery.settings import Keep, Paths, Settings, Target

pytestmark = pytest.mark.image

OLD, NEW = "old-key-of-a-test", "new-key-of-a-test"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folders = {name: tmp_path / name for name in ("cache", "secrets", "scratch", "wal")}
    paths = Paths(**folders, memory=tmp_path)
    paths.secrets.mkdir()
    (paths.secrets / "BACKUP_KEY").write_text(OLD)
    targets = (Target(str(tmp_path / "near")), Target(str(tmp_path / "far")))
    return Settings("dev", "acme-dev", targets, 30, 7, Keep(1, 0, 0), paths=paths)


def test_the_new_key_is_added_everywhere_before_the_old_one_goes(settings: Settings) -> None:
    repositories = [Repository(settings, each, "backups") for each in settings.targets]
    for each in repositories:
        each.ensure()
        each.save_text("entry.json", "saved with the old key", ["part=record"])
    assert keys.accepted(settings, OLD) and not keys.accepted(settings, NEW)
    keys.add(settings, NEW)
    keys.add(settings, NEW)
    assert keys.accepted(settings, OLD) and keys.accepted(settings, NEW)
    (settings.paths.secrets / "BACKUP_KEY").write_text(NEW)
    keys.only(settings, NEW)
    assert not keys.accepted(settings, OLD)
    for each in repositories:
        assert each.text(each.snapshots()[0].id, "/entry.json") == "saved with the old key"


def test_the_old_key_stays_where_the_new_one_was_never_added(settings: Settings) -> None:
    Repository(settings, settings.targets[0], "backups").ensure()
    with pytest.raises(WrongKey):
        keys.only(settings, NEW)
    assert keys.accepted(settings, OLD)
