"""Releases: what is kept, what one can go back to, and what is shown."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from dataclasses import replace

import pytest

from ops import engine
from ops.base.errors import FAILED, USAGE, OpsError
from ops.state import memory, releases
from ops.state.releases import BROKEN, DEPLOYED, INTERRUPTED, KEPT, RUNNING


@pytest.fixture
def deployed(env, remembered, monkeypatch):
    """Makes releases: one of web with that image and setting, with a result. All images are on the engine."""
    monkeypatch.setattr(releases, "revision", lambda _folder: "1a2b3c4")
    monkeypatch.setattr(releases, "author", lambda: "ann@laptop")
    monkeypatch.setattr(engine, "inspect", lambda ids, _kind: [{"Id": each} for each in ids])

    def make(image: str, result: str = DEPLOYED, level: str = "info", replicas: int = 1, **entry) -> releases.Release:
        web = {"build": {}, "environment": {"LOG_LEVEL": level}, "deploy": {"replicas": replicas}}
        document = {"name": "acme-dev", "services": {"web": {**web, **entry}}}
        release = releases.begin(env, document, "deploy", {"web": "new image"})
        images = {"web": image} if result == DEPLOYED else {}
        releases.finish(
            env, release, result, reason="web is unhealthy." * (result == BROKEN), seconds=12, images=images
        )
        return release

    return make


def test_a_release_is_remembered(env, deployed) -> None:
    first, second = deployed("a"), deployed("b")
    assert [each.number for each in releases.history(env)] == [1, 2]
    now = releases.current(env)
    assert (now.number, now.by, now.revision, now.result, now.images) == (
        2,
        "ann@laptop",
        "1a2b3c4",
        DEPLOYED,
        {"web": "b"},
    )
    assert releases.document(env, first)["services"]["web"]["environment"] == {"LOG_LEVEL": "info"}
    assert now.folder == str(env.project_dir)
    assert second.number == 2


def test_back_to_the_one_before_that_differs(env, deployed) -> None:
    deployed("a"), deployed("b"), deployed("c", BROKEN), deployed("b")
    assert releases.target(env).number == 1


def test_back_to_other_settings_of_the_same_image(env, deployed) -> None:
    deployed("a"), deployed("a", level="debug")
    assert releases.target(env).number == 1


def test_back_to_another_limit_of_the_same_image(env, deployed) -> None:
    deployed("a"), deployed("a", mem_limit="1073741824")
    assert releases.target(env).number == 1


def test_another_number_of_containers_is_nothing_to_go_back_to(env, deployed) -> None:
    deployed("a"), deployed("b"), deployed("b", replicas=2)
    assert releases.target(env).number == 1


def test_a_lost_configuration_is_no_way_back(env, deployed) -> None:
    deployed("a"), deployed("b"), deployed("c")
    memory.update(env, lambda state: replace(state, documents={key: state.documents[key] for key in ("1", "3")}))
    assert releases.target(env).number == 1


def test_back_to_a_number(env, deployed) -> None:
    deployed("a"), deployed("b"), deployed("c")
    assert releases.target(env, 1).images == {"web": "a"}


def test_nothing_to_go_back_to(env, deployed) -> None:
    deployed("a")
    with pytest.raises(OpsError, match="Cannot roll back dev: no earlier release differs") as caught:
        releases.target(env)
    assert caught.value.code == FAILED


@pytest.mark.parametrize("number", [0, 2, 9])
def test_what_one_cannot_go_back_to(env, deployed, number: int) -> None:
    deployed("a"), deployed("b", BROKEN), deployed("c")
    with pytest.raises(OpsError, match=f"Cannot roll back dev to release {number}") as caught:
        releases.target(env, number)
    assert caught.value.code == USAGE
    assert caught.value.remedy == "Available releases: 1."


def test_images_that_are_gone(env, deployed, monkeypatch) -> None:
    deployed("a"), deployed("b")
    monkeypatch.setattr(engine, "inspect", lambda _ids, _kind: [])
    with pytest.raises(OpsError, match="images of release 1 are not on this machine any more: web"):
        releases.target(env)


def test_only_the_last_ones_are_kept(env, deployed) -> None:
    made = [deployed(f"image{number}") for number in range(KEPT + 2)]
    assert [each.number for each in releases.kept(env)] == [7, 6, 5, 4, 3]
    assert releases.images_kept(env) == {f"image{number}" for number in range(2, KEPT + 2)}
    assert [releases.is_documented(env, each) for each in made] == [False] * 2 + [True] * KEPT
    with pytest.raises(OpsError, match="The configuration of release 1 of dev is not remembered any more"):
        releases.document(env, made[0])


def test_the_history_ends_somewhere(env, deployed, monkeypatch) -> None:
    monkeypatch.setattr(releases, "REMEMBERED", 3)
    for number in range(6):
        deployed(f"image{number}", DEPLOYED if number < 2 else BROKEN)
    assert [each.number for each in releases.history(env)] == [1, 2, 4, 5, 6]


def test_what_was_killed_is_told(env, deployed) -> None:
    release = deployed("a")
    releases.begin(env, {}, "deploy", {})
    assert releases.history(env)[-1].result == RUNNING
    assert releases.history(env, busy=False)[-1].result == INTERRUPTED
    assert releases.current(env).number == release.number


def test_what_a_newer_version_adds_to_an_entry_is_no_obstacle(env, deployed) -> None:
    deployed("a")
    memory.update(env, lambda state: replace(state, releases=({**state.releases[0], "new": 1},)))
    assert [each.number for each in releases.history(env)] == [1]


def test_the_configuration_of_a_release_in_another_folder(env, deployed, tmp_path) -> None:
    release = deployed("a", volumes=[{"type": "bind", "source": f"{env.project_dir}/infrastructure/nginx"}])
    there = releases.document(env, release, tmp_path / "other")["services"]["web"]["volumes"][0]["source"]
    here = releases.document(env, release)["services"]["web"]["volumes"][0]["source"]
    assert (here, there) == (f"{env.project_dir}/infrastructure/nginx", f"{tmp_path}/other/infrastructure/nginx")


def test_a_configuration_is_a_file_only_while_compose_needs_it() -> None:
    with releases.as_file({"name": "acme"}) as path:
        assert json.loads(path.read_text()) == {"name": "acme"}
    assert not path.exists()


def test_the_table(env, deployed, capsys) -> None:
    deployed("a"), deployed("b", BROKEN), deployed("c")
    releases.show(env, releases.history(env))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[1:4]] == [["1", "<"], ["2", rows[2][1]], ["3", "*"]]
    assert "web is unhealthy." in " ".join(rows[2])


def test_for_programs(env, deployed) -> None:
    deployed("a"), deployed("b")
    found = json.loads(json.dumps(releases.as_json(env, releases.history(env))))
    assert (found["current"], found["kept"]) == (2, [2, 1])
    assert found["releases"][0]["changes"] == {"web": "new image"}


def test_never_deployed(env, capsys) -> None:
    releases.show(env, [])
    assert "never deployed" in capsys.readouterr().out


def test_the_revision_of_git_and_whether_files_differ_from_it(tmp_path) -> None:
    git = ("git", "-C", str(tmp_path), "-c", "user.name=ann", "-c", "user.email=ann@example.com")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "first"], check=True)
    revision = releases.revision(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{7,}", revision)
    (tmp_path / "new").touch()
    assert releases.revision(tmp_path) == f"{revision}+changes"


def test_a_project_within_a_repository(tmp_path) -> None:
    """What changes beside it is no change of the project, and where it is ignored the revision says nothing of it."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=ann", "-c", "user.email=ann@example.com")
    folder, scratch = tmp_path / "stack", tmp_path / "scratch"
    folder.mkdir(), scratch.mkdir()
    (folder / "README.md").touch(), (tmp_path / ".gitignore").write_text("/scratch/\n")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "first"], check=True)
    (tmp_path / "beside").touch(), (scratch / "README.md").touch()
    revision = releases.revision(folder)
    assert re.fullmatch(r"[0-9a-f]{7,}", revision)
    assert releases.revision(scratch) == ""
    (folder / "new").touch()
    assert releases.revision(folder) == f"{revision}+changes"


def test_who_is_at_work(monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    assert releases.author() == f"ann@{platform.node()}"


def test_without_git(tmp_path, monkeypatch) -> None:
    # The folder for tests may lie in somebody's repository.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert releases.revision(tmp_path) == ""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert releases.revision(tmp_path) == ""
