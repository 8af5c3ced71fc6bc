"""The preview of a deploy: what is announced, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ops.rollout import preview
from ops.rollout.observe import Survey, decide
from ops.stack import images
from ops.stack.model import Service, Stack
from ops.state.digests import FileState
from ops.state.drift import NEW_CONFIGURATION

WEB = Service("web", "acme/web:dev", replicas=1, built=True, has_health=True)
POSTGRES = Service("postgres", "postgres:18", networks=("database",))
MIGRATE = Service("migrate", "acme/migrate:dev", built=True, one_shot=True, networks=("database",))


@pytest.fixture
def see(env, make_container):
    """What would be announced when these things are as told."""

    def run(**told) -> preview.Preview:
        web = {"build": {"target": "production"}, "environment": {"LOG_LEVEL": "debug"}}
        document = {"services": {"web": web, "postgres": {}, "migrate": {}}}
        web_as_told = replace(WEB, replicas=told.get("replicas", 1))
        done = make_container("migrate", state="exited", health="")
        containers = told.get("containers", [make_container("web"), make_container("postgres"), done])
        seen = Survey(
            Stack("acme-dev", {each.name: each for each in (web_as_told, POSTGRES, MIGRATE)}, document),
            {each.id: told.get("hashes", {}).get(each.service, "hash") for each in containers},
            containers,
            told.get("own", []),
            {"acme/web:dev": "sha256:1", "postgres:18": "sha256:1", "acme/migrate:dev": "sha256:1"},
            told.get("files", {}),
        )
        return preview.compose(env, seen, decide(seen), told.get("deployed", {}))

    return run


def test_nothing_to_do(see, capsys) -> None:
    assert see().idle
    preview.show(see())
    assert capsys.readouterr().out == "nothing to do: dev is as declared\n"


def test_a_setting(see, capsys) -> None:
    shown = see(hashes={"web": "new"}, deployed={"web": {"environment": {"LOG_LEVEL": "info"}}})
    assert shown.steps == (preview.Step("web", preview.ROLL_OUT, True, ("LOG_LEVEL: info → debug",)),)
    preview.show(shown)
    out = capsys.readouterr().out
    assert "roll out  LOG_LEVEL: info → debug" in out
    assert "nothing was changed; `invoke deploy --env dev` does this" in out


def test_a_setting_without_a_release_to_compare_with(see) -> None:
    assert see(hashes={"web": "new"}).steps[0].reasons == (NEW_CONFIGURATION,)


@pytest.mark.parametrize(
    ("deployed", "reason"),
    [
        ({}, "its source or build settings changed"),
        ({"web": {"build": {"target": "production"}}}, "its source changed"),
        ({"web": {"build": {"target": "dev"}}}, "build target dev → production"),
    ],
)
def test_a_source(see, deployed: dict, reason: str) -> None:
    shown = see(own=[images.OwnImage("web", "acme/web:dev", "acme/web:0123456789ab")], deployed=deployed)
    assert shown.builds == ("web",)
    assert shown.steps == (preview.Step("web", preview.ROLL_OUT, True, (reason,)),)


def test_a_file_of_a_database_is_asked_for(see) -> None:
    shown = see(files={"postgres": {"infrastructure/postgres/primary.conf": FileState("b", 2000)}})
    reason = "infrastructure/postgres/primary.conf changed"
    assert shown.steps == (preview.Step("postgres", preview.RESTART, True, (reason,)),)


def test_all_reasons_are_told(see, make_container) -> None:
    two = [make_container("web", 1), make_container("web", 2), make_container("postgres")]
    shown = see(
        containers=two,
        hashes={"web": "new"},
        own=[images.OwnImage("web", "acme/web:dev", "acme/web:0123456789ab")],
        files={"web": {"SECRET": FileState("b", 2000)}},
    )
    assert [step.service for step in shown.steps] == ["web", "migrate"]
    assert shown.steps[0].reasons == (
        NEW_CONFIGURATION,
        "its source or build settings changed",
        "SECRET changed",
        "2 -> 1",
    )


def test_more_containers(see) -> None:
    shown = see(replicas=2)
    assert shown.steps == (preview.Step("web", "scale", True, ("1 -> 2",)),)


def test_what_goes(see, make_container, capsys) -> None:
    done = make_container("migrate", state="exited", health="")
    shown = see(containers=[make_container("web"), make_container("postgres"), done, make_container("mail")])
    assert (shown.removes, shown.idle) == (("mail",), False)
    preview.show(shown)
    assert "nothing declares it any more" in capsys.readouterr().out


def test_for_programs(env, see, monkeypatch, capsys) -> None:
    shown = see(hashes={"web": "new"})
    monkeypatch.setattr(preview, "survey", lambda _env: SimpleNamespace(stack=None, containers=[]))
    monkeypatch.setattr(preview, "decide", lambda *_args: None)
    monkeypatch.setattr(preview, "compose", lambda *_args: shown)
    monkeypatch.setattr(preview.majors, "check", lambda *_args: [])
    preview.preview(env, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["idle"] is False
    assert document["steps"][0]["service"] == "web"
