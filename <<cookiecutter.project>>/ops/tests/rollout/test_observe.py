"""What is observed before a decision, when not everybody answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.parts.nginx import edge
from ops.rollout import observe
from ops.stack import images, model
from ops.stack.model import Service, Stack
from ops.state import digests
from ops.state.document import State
from ops.state.drift import Drift
from ops.state.releases import Release

KEY = "00" * 32
FOLDER = "com.docker.compose.project.working_dir"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"health": "unhealthy"}, True),
        ({"health": "starting"}, True),
        ({"health": "starting", "restarts": 2}, False),
        ({"state": "restarting", "health": ""}, False),
        ({"state": "exited"}, False),
    ],
)
def test_an_nginx_that_keeps_restarting_serves_nobody(make_container, changes: dict, found: bool) -> None:
    nginx = make_container("nginx", **changes)
    assert edge.find([make_container("web"), nginx]) is (nginx if found else None)


@pytest.fixture
def look(env, make_container, monkeypatch):
    """Observes two containers of web: the first was noted, with content "a"; "b" is there now."""
    release = Release(1, 0.0, "ann@laptop", "", "deploy", result="deployed")
    noted = {"one": digests.sealed(KEY, {"SECRET": "a"})}
    state = State(1, KEY, noted, (asdict(release),), {"1": {"name": "acme-dev", "services": {"web": {"cpus": 1}}}})
    declared = Stack(
        "acme-dev",
        {"web": Service("web", "acme/web:1", built=True, has_health=True)},
        {"name": "acme-dev", "services": {"web": {"restart": "always", "mounts": f"{env.project_dir}/secrets"}}},
    )
    folder = str(env.project_dir)

    def containers(**changes: object):
        usual = {"labels": {FOLDER: folder}, **changes}
        return [make_container("web", 1, id="one", **usual), make_container("web", 2, id="two", **usual)]

    def hashes(_env: object, document: Path | None = None) -> dict[str, str]:
        return {
            "web": "hash of " + json.loads(document.read_text())["services"]["web"]["mounts"] if document else "hash"
        }

    def run(found, state: State = state) -> observe.Survey:
        for module, name, answer in (
            (engine, "warn_overridden", lambda _env: None),
            (engine, "containers", lambda _env: found),
            (engine, "image_ids", lambda names: dict.fromkeys(names, "sha256:1")),
            (model, "load", lambda _env: declared),
            (model, "hashes", hashes),
            (observe.networks, "refuse", lambda *_args: None),
            (observe.memory, "load", lambda _env: state),
            (observe.elsewhere, "refuse_without_secrets", lambda *_args: None),
            (images, "own_images", lambda *_args: []),
            (digests, "mounted_files", lambda *_args: {"web": {"SECRET": "b"}}),
            (digests, "seen_by", lambda *_args: {"SECRET": "b"}),
        ):
            monkeypatch.setattr(module, name, answer)
        return observe.survey(env)

    run.containers, run.state, run.env = containers, state, env
    return run


def test_what_is_declared_and_what_exists(look) -> None:
    found = look.containers()
    seen = look(found)
    assert (seen.containers, seen.hashes, seen.image_ids) == (
        found,
        dict.fromkeys(("one", "two"), "hash"),
        {"acme/web:1": "sha256:1"},
    )
    assert seen.needs() == images.Needs()
    assert seen.deployed == {"web": {"cpus": 1}}
    # What was noted is compared; one that nobody noted is asked what it sees.
    assert seen.drifts() == {"one": Drift(files=("SECRET",)), "two": Drift()}
    assert seen.unnoted


def test_all_that_was_noted_needs_no_note(look) -> None:
    found = look.containers()[:1]
    assert not look(found).unnoted
    # But what only the folder of an earlier version remembers does.
    assert look(found, State(0, KEY, look.state.mounted)).unnoted


def test_what_was_started_in_another_folder_has_the_hashes_of_that_folder(look) -> None:
    there = {"labels": {FOLDER: "/srv/other"}, "mounts": {"/run/secrets/SECRET": "/srv/other/SECRET"}}
    seen = look(look.containers(**there))
    assert seen.hashes == dict.fromkeys(("one", "two"), "hash of /srv/other/secrets")
    assert seen.strangers == {"one", "two"}


def test_without_a_deploy_there_is_nothing_to_compare_with(look) -> None:
    assert look([], State(1, KEY)).deployed == {}
    assert look([], State(1, KEY, {}, look.state.releases)).deployed == {}


def test_a_folder_without_the_secrets_of_what_runs_is_refused(look, monkeypatch) -> None:
    look([])
    found = look.containers()

    def refuse(_env: object, containers: object, state: State) -> None:
        assert (containers, state) == (found, look.state)
        raise OpsError("This folder lacks the secrets.")

    monkeypatch.setattr(engine, "containers", lambda _env: found)
    monkeypatch.setattr(observe.elsewhere, "refuse_without_secrets", refuse)
    with pytest.raises(OpsError, match="lacks the secrets"):
        observe.survey(look.env)
