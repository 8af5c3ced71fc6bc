"""What a container has mounted is noted, and what nobody noted counts as seen when it is older than the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.model import Mount, Service
from ops.state import digests
from ops.state.digests import FileState


def test_mounted_files(tmp_path: Path, make_stack) -> None:
    folder = tmp_path / "infrastructure/postgres"
    (folder / "initdb").mkdir(parents=True)
    (folder / "primary.conf").write_text("a")
    (folder / "initdb/roles.sh").write_text("b")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_text("c")
    outside = tmp_path.parent / "outside.conf"
    outside.write_text("d")
    service = Service(
        "postgres",
        "postgres:18",
        mounts=(
            Mount(folder, "/etc/postgresql"),
            Mount(folder / "initdb", "/docker-entrypoint-initdb.d"),
            Mount(tmp_path / "config/dev/secrets/MISSING", "/run/secrets/MISSING"),
            Mount(outside, "/outside"),
        ),
    )
    found = digests.mounted_files(make_stack(service), tmp_path)["postgres"]
    assert set(found) == {"infrastructure/postgres/primary.conf", "config/dev/secrets/MISSING"}
    assert found["config/dev/secrets/MISSING"] == FileState("", 0)


def test_notes_are_kept_for_the_owner_only(env, make_container) -> None:
    assert digests.read_notes(env) == {}
    digests.write_notes(
        env, [make_container("web"), make_container("redis")], {"web": {"SECRET": FileState("a", 500.0)}}
    )
    path = env.state_dir / "content.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert env.state_dir.stat().st_mode & 0o777 == 0o700
    assert digests.read_notes(env) == {"acme-dev-web-1": {"SECRET": "a"}, "acme-dev-redis-1": {}}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"web": 1}'])
def test_damaged_notes_count_as_none(env, text: str) -> None:
    env.state_dir.mkdir(parents=True)
    (env.state_dir / "content.json").write_text(text)
    assert digests.read_notes(env) == {}


@pytest.mark.parametrize(("modified", "seen"), [(999.0, True), (1001.0, False)])
def test_containers_nobody_noted_saw_what_was_there_when_they_were_made(make_container, modified, seen) -> None:
    mounted = digests.mounted_by(make_container("web"), {"SECRET": FileState("b", modified)}, None)
    assert mounted == ({"SECRET": "b"} if seen else {})
