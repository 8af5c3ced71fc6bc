"""Containers that were started from another folder: what that means, and when a checkout must not go on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.state import elsewhere
from ops.state.document import State
from ops.state.releases import Release

NONE = State()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


@pytest.fixture
def started(make_container):
    """A container started from a folder, with a secret of it mounted."""

    def make(service: str, folder: Path):
        labels = {"com.docker.compose.project.working_dir": str(folder)}
        secret = {"/run/secrets/JWT_SECRET": f"{folder}/config/dev/secrets/JWT_SECRET"}
        return make_container(service, labels=labels, mounts=secret)

    return make


def test_which_they_are(env, other, started, make_container) -> None:
    here, there = started("web", env.project_dir), started("api", other)
    without = make_container("mail", labels={"com.docker.compose.project.working_dir": str(other)})
    assert elsewhere.folders([here, there, without, make_container("x")], env.project_dir) == {str(other): [there]}
    (line,) = elsewhere.explain([here, there], env.project_dir)
    assert line.startswith(f"1 of 2 containers were started from {other} and mount its files until they are replaced")
    assert line.endswith(": api. Keep that folder.")


def test_a_link_to_this_folder_is_this_folder(env, tmp_path, started) -> None:
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(env.project_dir)
    assert elsewhere.folders([started("web", link)], env.project_dir) == {}


def test_a_folder_that_is_gone(env, other, started) -> None:
    there = started("api", other)
    other.rmdir()
    (line,) = elsewhere.explain([there], env.project_dir)
    assert line.endswith("That folder is gone: a deploy replaces them.")
    assert elsewhere.homeless([there, started("web", env.project_dir)], env.project_dir) == [there]


def test_a_folder_that_one_may_not_look_into_is_not_gone(monkeypatch) -> None:
    def deny(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", deny)
    assert not elsewhere.is_gone(Path("/root/x"))


def test_a_checkout_without_the_secrets_of_what_runs(env, other, started) -> None:
    with pytest.raises(OpsError) as caught:
        elsewhere.refuse_without_secrets(env, [started("api", other)], NONE)
    assert caught.value.code == REFUSED
    assert str(other) in caught.value.message and "JWT_SECRET" in caught.value.message
    assert f"cp -a {other}/config/dev/secrets/. config/dev/secrets/" in caught.value.remedy
    assert "COMPOSE_PROJECT_NAME" in caught.value.remedy


def test_with_its_secrets_it_goes_on(env, other, started) -> None:
    (env.secrets_dir / "JWT_SECRET").write_text("x")
    elsewhere.refuse_without_secrets(env, [started("api", other)], NONE)


def test_a_secret_that_was_deleted_here_is_another_matter(env, started) -> None:
    elsewhere.refuse_without_secrets(env, [started("api", env.project_dir)], NONE)


def deployed(folder: Path | str) -> State:
    release = asdict(Release(1, 1.0, "ann@laptop", "", "deploy", folder=str(folder)))
    return State(1, mounted={"gone": {"config/dev/secrets/JWT_SECRET": "x", "a.conf": "y"}}, releases=(release,))


def test_it_is_down_but_its_data_is_not(env, other) -> None:
    assert elsewhere.missing_secrets(env, [], deployed(other)) == (str(other), ["JWT_SECRET"])


@pytest.mark.parametrize("folder", ["", "here"])
def test_nothing_is_missing_where_it_was_deployed_from(env, folder: str) -> None:
    state = deployed(env.project_dir if folder else "")
    assert elsewhere.missing_secrets(env, [], state) == ("", [])
    assert elsewhere.missing_secrets(env, [], NONE) == ("", [])


def test_many_are_not_all_listed(env) -> None:
    error = elsewhere.without_secrets(env, "/srv/a", ["A", "B", "C", "D", "E"])
    assert "A, B, C and 2 more" in error.message
