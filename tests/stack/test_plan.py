"""`invoke deploy --plan` announces exactly the containers that change. The long form: `nox -s bench -- plans`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from .edits import RELOAD, Editor, forget, try_out
from .project import Project

pytestmark = pytest.mark.story

REDIS = {"redis-primary", "redis-replica"}
SOURCES = "services/{0}/{0}/app.py"


@pytest.fixture(scope="module")
def editor(dev_stack: Project) -> Iterator[Editor]:
    """A running stack, and who edits it."""
    yield Editor(dev_stack, random.Random(4))
    forget(dev_stack)


def expect(editor: Editor, edit: str, *changes: str) -> None:
    """An edit was made: exactly these services are announced, and change."""
    outcome = try_out(editor.project, edit)
    assert outcome.exact, str(outcome)
    assert outcome.happened == set(changes), str(outcome)


def test_what_goes_nowhere(editor: Editor) -> None:
    files = ("services/web/pyproject.toml", "services/common/tests/test_tokens.py", "config/dev/.env")
    expect(editor, " + ".join(editor.comment(file) for file in files))


@pytest.mark.fault
def test_a_setting_and_a_file_of_nginx(editor: Editor) -> None:
    editor.project.set(MAIL_FROM="other@example.com")
    expect(editor, editor.comment("infrastructure/nginx/edge.conf"), "notification-service", RELOAD)


def test_a_source_an_image_and_a_new_service(editor: Editor) -> None:
    edits = editor.comment(SOURCES.format("web")), editor.image(), editor.service()
    expect(editor, " + ".join(edits), "web", "extra", *REDIS)


@pytest.mark.fault
def test_a_secret_a_limit_and_a_number(editor: Editor) -> None:
    editor.project.set(API_REPLICAS="2", AUTH_MEMORY="400m")
    expect(editor, editor.secret(), "notification-service", "api", "auth-service")


@pytest.mark.fault
def test_fewer_of_one(editor: Editor) -> None:
    editor.project.set(API_REPLICAS="1")
    expect(editor, "API_REPLICAS=1", "api")


def test_reasons_are_told_and_nothing_is_touched(editor: Editor) -> None:
    project = editor.project
    before = project.containers()
    project.set(WEB_MEMORY="333m")
    editor.comment(SOURCES.format("web"))
    said = project.invoke("deploy", "--plan").stdout
    assert "roll out" in said
    assert "memory limit 256.0 MiB → 333.0 MiB" in said
    assert "its source changed" in said
    plan = json.loads(project.invoke("deploy", "--plan", "--json").stdout)
    assert plan["idle"] is False
    steps = [(each["operation"], each["subject"]) for each in plan["operations"]]
    assert steps == [("build", "web"), ("roll out", "web")]
    assert project.containers() == before


def test_a_changed_network_is_refused_before_it_stops_anybody(editor: Editor) -> None:
    """Compose would stop a running container to replace its network, even where only new ones are asked for."""
    project, file = editor.project, editor.project.folder / "docker-compose.yml"
    declared, before = file.read_text(), project.containers()
    file.write_text(declared.replace("\n  scrape: #", "\n  scrape:\n    labels: {edited: there} #"))
    assert file.read_text() != declared
    try:
        for command in (["deploy", "--plan"], ["deploy", "--yes"]):
            assert "network scrape" in project.invoke(*command, code=3).stderr
    finally:
        file.write_text(declared)
    assert project.containers() == before


def test_a_database_is_not_restarted_without_being_asked(editor: Editor) -> None:
    project = editor.project
    editor.comment("infrastructure/postgres/common.conf")
    before = project.containers()
    done = project.invoke("deploy", code=2)
    assert "postgres-primary" in done.stdout
    assert "--yes" in done.stderr
    assert project.containers() == before
