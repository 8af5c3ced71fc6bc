"""The guard of a PostgreSQL volume: which images may start on what it holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

GUARD = Path(__file__).resolve().parents[3] / "infrastructure/postgres/guard.sh"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume, empty."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def database(folder: Path, major: str) -> None:
    """What of a database the guard looks at, and what lies below that it must not take for one."""
    for each in (folder, folder / "base" / "1"):
        each.mkdir(parents=True)
        (each / "PG_VERSION").write_text(f"{major}\n")


def start(volume: Path, major: str, role: str = "primary", *command: str, data: str = "") -> tuple[int, str, str]:
    """Exit code, and what the command and the guard said."""
    variables = {"PG_MAJOR": major, "PGDATA": data or f"{volume}/{major}/docker", "ENVIRONMENT": "prod"}
    line = ["bash", str(GUARD), role, *command]
    done = subprocess.run(line, env={**os.environ, **variables}, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_an_empty_volume_may_be_filled(volume: Path, role: str) -> None:
    assert start(volume, "18", role, "echo", "started", "it") == (0, "started it\n", "")


def test_its_own_major_starts(volume: Path) -> None:
    database(volume / "18/docker", "18")
    assert start(volume, "18", "primary", "echo", "started") == (0, "started\n", "")


def test_an_older_one_is_kept_beside(volume: Path) -> None:
    database(volume / "17/docker", "17")
    database(volume / "18/docker", "18")
    assert start(volume, "18")[0] == 0


@pytest.mark.parametrize("role", ["primary", "replica", "node"])
def test_a_newer_major_is_refused(volume: Path, role: str) -> None:
    database(volume / "9/docker", "9.6")
    database(volume / "17/docker", "17")
    code, _, said = start(volume, "18", role)
    assert code == 3
    what, remedy = said.splitlines()
    assert f"{volume} holds a database of PostgreSQL 17 in 17/docker; this image is PostgreSQL 18" in what
    assert "invoke upgrade-database --env prod" in remedy
    assert not (volume / "18").exists()


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_an_older_major_is_refused(volume: Path, role: str) -> None:
    database(volume / "17/docker", "17")
    database(volume / "18/docker", "18")
    code, _, said = start(volume, "17", role)
    assert code == 3
    assert "this image is PostgreSQL 17 and cannot read it" in said and "--back --env prod" in said


def test_after_an_upgrade_a_standby_copies_and_a_primary_does_not_begin_anew(volume: Path) -> None:
    database(volume / "17/docker", "17")
    (volume / "18").mkdir()
    (volume / "18/upgraded-from").write_text("postgres:17.6\n")
    assert start(volume, "18", "replica")[0] == 0
    assert start(volume, "18", "node")[0] == 0
    code, _, said = start(volume, "18", "primary")
    assert code == 3 and "did not come to its end" in said


@pytest.mark.parametrize(
    ("folder", "named"), [("data", "in data"), (".", "in its top folder"), ("17/main", "in 17/main")]
)
def test_another_layout_is_no_empty_volume(volume: Path, folder: str, named: str) -> None:
    if folder == ".":
        (volume / "PG_VERSION").write_text("17\n")
        database(volume / "base/5", "17")
    else:
        database(volume / folder, "17")
    code, _, said = start(volume, "18")
    assert code == 3 and f"PostgreSQL 17 {named};" in said and "docs/upgrade-database.md" in said


@pytest.mark.parametrize("folder", ["18/.copying", ".upgrade/18/docker", ".aside/18-x"])
def test_what_is_at_work_or_put_aside_does_not_count(volume: Path, folder: str) -> None:
    database(volume / folder, "18")
    assert start(volume, "17")[0] == 0


def test_a_server_beside_the_old_one_has_a_place_of_its_own(volume: Path) -> None:
    database(volume / "17/docker", "17")
    assert start(volume, "18", data=f"{volume}/.upgrade/18/docker")[0] == 0


def test_an_image_that_keeps_its_data_elsewhere_is_refused(volume: Path) -> None:
    code, _, said = start(volume, "17", data=f"{volume}/data")
    assert code == 3 and "a volume of its own that is lost with the container" in said
