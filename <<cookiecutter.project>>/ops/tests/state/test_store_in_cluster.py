"""What is remembered of an environment in a cluster: a Secret of its namespace."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ops.base.environments import Environment
from ops.engine import kubectl
from ops.engine.results import Completed
from ops.state import memory, releases, store
from ops.state.document import State


@pytest.fixture
def env(env: Environment) -> Environment:
    return replace(env, values={**env.values, "ENGINE": "kubernetes", "KUBE_CONTEXT": "test"})


@pytest.fixture
def kept(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The Secrets of a namespace, by name; the store itself is the real one."""
    monkeypatch.undo()
    secrets: dict[str, Any] = {}

    def run(_at: kubectl.Place, verb: str, *words: str, **options: Any) -> Completed:
        if verb == "get":
            found = secrets.get(words[1])
            return Completed(("kubectl",), 0, json.dumps(found) if found else "", "")
        document = json.loads(options["input"])
        name = document["metadata"]["name"]
        assert (verb == "replace") == (name in secrets)
        secrets[name] = document
        return Completed(("kubectl",), 0, f"secret/{name}\n", "")

    monkeypatch.setattr(kubectl, "run", run)
    return secrets


def test_nothing_is_remembered_before_the_first_deploy(kept: dict[str, Any], env: Environment) -> None:
    assert store.read(env) is None
    assert releases.history(env) == []


def test_what_is_written_is_read_by_the_next_checkout(kept: dict[str, Any], env: Environment) -> None:
    first = store.write(env, State())
    second = store.write(env, first)
    assert store.read(env) == second
    # One document is enough: the API server writes all of it or nothing, and a Secret holds 1 MiB.
    assert len(kept["deployed"]["data"]) == 1


def test_a_release_is_begun_and_finished_there(kept: dict[str, Any], env: Environment) -> None:
    release = releases.begin(env, {"name": "acme", "services": {}}, "deploy", {"web": "new image"})
    releases.finish(env, release, releases.DEPLOYED, images={"web": "acme/web:1"})
    current = releases.current(env)
    assert current and (current.number, current.images) == (1, {"web": "acme/web:1"})
    assert releases.document(env, current)["name"] == "acme"


def test_notes_stay_beside_the_document(kept: dict[str, Any], env: Environment) -> None:
    store.put_note(env, "swap", "x")
    memory.update(env, lambda state: state)
    assert store.note(env, "swap") == "x"
