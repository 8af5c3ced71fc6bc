"""`invoke deploy --plan` announces exactly the containers that change. The long form: `nox -s bench -- plans`."""

from __future__ import annotations

import json
import random

import pytest

from .edits import Editor, announced, try_out
from .project import Project

KINDS = ("setting", "limit", "mounted", "secret", "source", "image", "service", "nothing")


@pytest.fixture(scope="module")
def editor(project: Project) -> Editor:
    """A running stack in which a rollout costs as little as it can."""
    project.set(DRAIN_SECONDS="0", ROLLOUT_STEADY_SECONDS="0")
    assert announced(project) >= {"web", "api", "postgres-primary", "nginx", "migrate"}
    project.invoke("deploy")
    return Editor(project, random.Random(4))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_announced_is_what_happens(editor: Editor, kind: str) -> None:
    outcome = try_out(editor.project, getattr(editor, kind)())
    assert outcome.exact, str(outcome)
    assert bool(outcome.happened) == (kind != "nothing") or "nginx" in outcome.edit


def test_reasons_are_told_and_nothing_is_touched(editor: Editor) -> None:
    project = editor.project
    before = project.containers()
    project.set(WEB_MEMORY="333m")
    said = project.invoke("deploy", "--plan").stdout
    assert "memory limit" in said and "→ 333.0 MiB" in said and "roll out" in said
    assert json.loads(project.invoke("deploy", "--plan", "--json").stdout)["idle"] is False
    assert project.containers() == before


def test_a_database_is_not_restarted_without_being_asked(editor: Editor) -> None:
    project = editor.project
    editor.comment("infrastructure/postgres/common.conf")
    before = project.containers()
    done = project.invoke("deploy", code=2)
    assert "postgres-primary" in done.stdout and "--yes" in done.stderr
    assert project.containers() == before
