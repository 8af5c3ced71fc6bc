"""What is remembered: changed by whoever holds the lock, and adopted once from where earlier versions kept it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ops import engine
from ops.state import memory, releases
from ops.state.digests import seal
from ops.state.document import State

ENTRY = {"number": 1, "at": 1.0, "by": "ann@laptop", "revision": "", "command": "deploy", "result": "deployed"}


def earlier(folder: Path) -> Path:
    """A project as an earlier version left it."""
    place = folder / ".state" / "dev"
    (place / "releases" / "1").mkdir(parents=True)
    (place / "content.json").write_text(json.dumps({"abc": {"config/dev/secrets/A": "123"}}))
    (place / "releases" / "1" / "release.json").write_text(json.dumps(ENTRY))
    document = {"name": "acme-dev", "services": {"web": {"source": f"{folder}/x"}}}
    (place / "releases" / "1" / "compose.json").write_text(json.dumps(document))
    (place / "up.log").write_text("log")
    return place


def test_nothing_yet(env, remembered) -> None:
    state = memory.load(env)
    assert (state.generation, state.mounted, state.releases) == (0, {}, ())
    assert remembered == {}


def test_changes_add_up(env, remembered) -> None:
    memory.note(env, {"a": {"x": "1"}, "b": {"x": "2"}}, ["a", "b"])
    memory.note(env, {"c": {"x": "3"}}, ["b", "c"])
    state = memory.load(env)
    assert state.generation == 2
    assert state.mounted == {"b": {"x": seal(state.key, "2")}, "c": {"x": seal(state.key, "3")}}


def test_a_file_that_was_rewritten_is_noted_alone(env, remembered) -> None:
    memory.note(env, {"a": {"x": "1", "y": "1"}, "b": {"x": "1"}}, ["a", "b"])
    memory.add(env, {"a": {"x": "2"}, "c": {"z": "1"}})
    state = memory.load(env)
    assert state.mounted == {
        "a": {"x": seal(state.key, "2"), "y": seal(state.key, "1")},
        "b": {"x": seal(state.key, "1")},
        "c": {"z": seal(state.key, "1")},
    }


def test_an_earlier_project_is_adopted_once(env, remembered) -> None:
    place = earlier(env.project_dir)
    state = memory.load(env)
    assert state.mounted == {"abc": {"config/dev/secrets/A": seal(state.key, "123")}}
    assert [each.number for each in releases.history(env)] == [1]
    assert releases.document(env, releases.current(env), Path("/b"))["services"]["web"]["source"] == "/b/x"
    assert sorted(path.name for path in place.iterdir()) == ["content.json", "releases", "up.log"], "only read so far"
    assert not memory.is_settled(env, state)
    state = memory.update(env, lambda state: state)
    assert memory.is_settled(env, state)
    assert [path.name for path in place.iterdir()] == ["up.log"]
    kept = memory.load(env)
    assert kept.mounted == {"abc": {"config/dev/secrets/A": seal(kept.key, "123")}}
    assert [each.number for each in releases.history(env)] == [1]


def test_a_clone_adopts_what_is_in_the_folder_that_runs(env, remembered, make_container, tmp_path, monkeypatch) -> None:
    place = earlier(tmp_path / "other")
    running = make_container("web", labels={"com.docker.compose.project.working_dir": str(tmp_path / "other")})
    monkeypatch.setattr(engine, "containers", lambda _env: [running])
    memory.update(env, lambda state: state)
    assert [each.number for each in releases.history(env)] == [1]
    assert (place / "content.json").exists(), "it belongs to the other folder"


def test_a_second_earlier_project_adds_its_notes_and_keeps_its_history(env, remembered) -> None:
    memory.update(env, lambda state: replace(state, mounted={"def": {"x": "1"}}, releases=({**ENTRY, "at": 2.0},)))
    place = earlier(env.project_dir)
    memory.update(env, lambda state: state)
    assert memory.load(env).mounted.keys() == {"abc", "def"}
    assert [each.at for each in releases.history(env)] == [2.0]
    assert (place / "releases" / "1" / "release.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"web": 1}', "\xff"])
def test_damaged_files_of_an_earlier_version_count_as_none(env, remembered, text: str) -> None:
    place = earlier(env.project_dir)
    (place / "content.json").write_text(text, encoding="latin-1")
    (place / "releases" / "1" / "release.json").write_text(text, encoding="latin-1")
    assert (memory.load(env).mounted, memory.load(env).releases) == ({}, ())


def test_a_state_that_is_known_wins(env, remembered) -> None:
    assert memory.with_digests(State(mounted={"abc": {"x": "1"}}), {"abc": {"x": "2"}}).mounted == {"abc": {"x": "1"}}
