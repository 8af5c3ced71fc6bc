"""A server beside the stack: made from a moment, found, and removed without a trace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ops import engine
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.data import choice, part, scratch
from ops.data.entries import Wanted
from ops.stack.model import Service

PLAN = {"environment": "dev", "moment": "2026-11-22T05:03:00+00:00", "entry": "20261122T050300Z"}


@pytest.fixture
def stage(env, monkeypatch, make_stack, make_container):
    """Everything that the engine is told, in its order."""
    env.values.update(POSTGRES_USER="admin", POSTGRES_DB="appdb")
    (env.secrets_dir / "POSTGRES_PASSWORD").write_text("it's secret")
    found = SimpleNamespace(done=[], there=False, fails="", asked=[], volume_in_use=False)
    server = make_container("", labels={scratch.CONTENT: "then"}, ports=("127.0.0.1:32768->5432",))

    def docker(*line, **_options):
        words = " ".join(line)
        found.done.append(words)
        if line[0] == "run" and "--detach" in line:
            found.there = True
        if line[0] == "rm":
            found.there = False
        if found.volume_in_use and words.startswith("volume rm"):
            return SimpleNamespace(ok=False, stderr="volume is in use", stdout="")
        return SimpleNamespace(ok=True, stdout="", stderr="")

    def call(_env, arguments, _tick, **options):
        found.done.append(" ".join([arguments[0], *arguments[-1:], *options.get("mounts", [])]))
        if arguments[0] == found.fails:
            raise OpsError("WAL is missing.")
        return PLAN

    monkeypatch.setattr(engine, "docker", docker)
    monkeypatch.setattr(engine, "inspect", lambda *_: [{}] if found.there else [])
    monkeypatch.setattr(engine, "container", lambda _: server)
    monkeypatch.setattr(engine, "look", lambda _: [server])
    monkeypatch.setattr(
        engine, "exec_", lambda _id, argv, input, **_: found.asked.append(input) or SimpleNamespace(ok=True)
    )
    monkeypatch.setattr(part, "call", call)
    monkeypatch.setattr(part, "make_image", lambda *_: None)
    monkeypatch.setattr(scratch.model, "load", lambda _: make_stack(Service("backup-verify", "acme/backup")))
    return found


def test_a_moment_is_recovered_into_a_volume_of_its_own_and_served(env, stage, capsys) -> None:
    found = scratch.start(env, Wanted(until="newest"))
    assert [line.split(" --")[0] for line in stage.done] == [
        "materialize",
        "volume rm",
        "volume create",
        "run",
        "recover",
        "run",
    ]
    assert stage.done[4] == "recover --into=/served acme-dev-scratch:/served"
    serving = stage.done[5]
    assert "--publish 127.0.0.1::5432" in serving and "--cap-drop ALL" in serving and "--network" not in serving
    assert "run/secrets" not in serving and "secret" not in serving
    assert stage.asked[-1].endswith("""ALTER ROLE "admin" PASSWORD 'it''s secret';""")
    scratch.show(found, env)
    said = capsys.readouterr().out
    assert "postgresql://admin@127.0.0.1:32768/appdb" in said and "it's secret" not in said
    assert "invoke restore --drop-scratch --env dev" in said


@pytest.mark.parametrize("step", ["recover", "materialize"])
def test_nothing_is_left_of_one_that_failed(env, stage, step) -> None:
    stage.fails = step
    with pytest.raises(OpsError, match="WAL is missing"):
        scratch.start(env, Wanted())
    assert not stage.there
    if step == "recover":
        assert stage.done[-1] == "volume rm --force acme-dev-scratch"


def test_one_that_is_there_is_not_replaced(env, stage) -> None:
    stage.there = True
    with pytest.raises(OpsError, match="acme-dev-scratch is there already: then") as caught:
        scratch.start(env, Wanted())
    assert caught.value.code == REFUSED and "--drop-scratch" in caught.value.remedy
    assert stage.done == []


def test_one_that_another_command_recovers_is_left_alone(env, stage) -> None:
    stage.volume_in_use = True
    with pytest.raises(OpsError, match="is being recovered by another command"):
        scratch.start(env, Wanted())
    assert "recover --into=/served acme-dev-scratch:/served" not in stage.done


def test_only_databases_can_be_served(env, stage) -> None:
    with pytest.raises(OpsError, match="volume:files is not of it") as caught:
        scratch.start(env, Wanted(), choice.parse("postgres,volume:files"))
    assert caught.value.code == USAGE and stage.done == []


def test_it_is_removed_with_its_data(env, stage) -> None:
    stage.there = True
    assert scratch.drop(env) is True
    assert stage.done == ["rm --force --volumes acme-dev-scratch", "volume rm --force acme-dev-scratch"]
    assert scratch.drop(env) is False
