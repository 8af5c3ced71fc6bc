"""What people get wrong before anything runs, and what is told them: one sentence, a non-zero exit, nothing touched.

Nothing is deployed here. What goes wrong in a stack that runs is in test_mishaps.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project, docker, listening_on, refused


@pytest.fixture
def untouched(project: Project) -> Iterator[Project]:
    yield project
    assert project.containers() == {} and project.volumes() == set()


def test_unknown_environment(untouched: Project) -> None:
    refused(untouched.invoke("deploy", "--env", "qa", code=2), "qa", "dev", "staging", "prod")


def test_missing_env_file(untouched: Project) -> None:
    hidden = untouched.env_file("staging").rename(untouched.folder / "hidden.env")
    try:
        refused(untouched.invoke("deploy", "--env", "staging", code=None), "config/staging/.env")
    finally:
        hidden.rename(untouched.env_file("staging"))


def test_broken_line_is_named(untouched: Project) -> None:
    text = untouched.env_file("staging").read_text()
    untouched.env_file("staging").write_text(text + "THIS IS NOT A SETTING\n")
    line = text.count("\n") + 1
    try:
        refused(untouched.invoke("deploy", "--env", "staging", code=None), f"config/staging/.env:{line}")
    finally:
        untouched.env_file("staging").write_text(text)


@pytest.mark.parametrize("options", [(), ("--plan",)])
def test_prod_without_secrets_names_the_command(untouched: Project, options: tuple[str, ...]) -> None:
    secrets = sorted((untouched.folder / "config/prod/secrets").rglob("*"))
    refused(untouched.invoke("deploy", "--env", "prod", *options, code=3), "invoke secret-init --env prod")
    assert sorted((untouched.folder / "config/prod/secrets").rglob("*")) == secrets


def test_prod_with_a_weak_secret(untouched: Project) -> None:
    untouched.invoke("secret-init", "--env", "prod")
    secret = untouched.folder / "config/prod/secrets/POSTGRES_PASSWORD"
    secret.chmod(0o644)
    secret.write_text("secure_db_password")
    secret.chmod(0o444)
    refused(untouched.invoke("secret-check", "--env", "prod", code=1), "POSTGRES_PASSWORD")
    done = untouched.invoke("deploy", "--env", "prod", code=3)
    refused(done, "POSTGRES_PASSWORD")
    assert "secure_db_password" not in done.stdout + done.stderr


def test_engine_not_running(untouched: Project) -> None:
    refused(untouched.invoke("deploy", code=3, DOCKER_HOST="unix:///nonexistent/docker.sock"), "Docker", "engine")


def test_compose_too_old(untouched: Project, tmp_path: Path) -> None:
    """The real Compose behind a plugin that only lies about its version."""
    plugins = tmp_path / "cli-plugins"
    plugins.mkdir()
    real = docker("info", "--format", '{{range .ClientInfo.Plugins}}{{if eq .Name "compose"}}{{.Path}}{{end}}{{end}}')
    plugin = plugins / "docker-compose"
    plugin.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '*docker-cli-plugin-metadata*) echo \'{"SchemaVersion":"0.1.0","Vendor":"x","Version":"v2.20.0"}\';;\n'
        '*version*--format*json*) echo \'{"version":"v2.20.0"}\';;\n'
        "*version*) echo 2.20.0;;\n"
        f'*) exec {real} "$@";;\nesac\n'
    )
    plugin.chmod(0o755)
    refused(untouched.invoke("deploy", code=3, DOCKER_CONFIG=str(tmp_path)), "2.20.0", "compose")


@pytest.mark.parametrize("options", [("--plan",), ()])
def test_port_taken(untouched: Project, options: tuple[str, ...]) -> None:
    port = int(untouched.settings()["SSL_PORT"])
    with listening_on(port):
        refused(untouched.invoke("deploy", *options, code=3), str(port), "SSL_PORT")


def test_a_plan_makes_no_secrets(untouched: Project) -> None:
    folder = untouched.folder / "config/staging/secrets"
    before = sorted(folder.rglob("*"))
    plan = json.loads(untouched.invoke("deploy", "--env", "staging", "--plan", "--json", code=3).stdout)
    assert {each["name"] for each in plan["refused"]} == {"secrets"}
    assert plan["operations"]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("scale", "postgres-primary", "2"), ("postgres-primary", "web")),
        (("scale", "nobody", "2"), ("nobody", "web")),
        (("scale", "web", "-1"), ("-1",)),
        (("scale", "web", "many"), ("many",)),
    ],
)
def test_scale_refuses(untouched: Project, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(untouched.invoke(*arguments, code=2), *words)


def test_restore_of_something_that_is_no_archive(untouched: Project, tmp_path: Path) -> None:
    (tmp_path / "holiday.tar").write_bytes(b"not an archive")
    refused(untouched.invoke("restore", str(tmp_path / "holiday.tar"), "--yes", code=None), "holiday.tar")
    refused(untouched.invoke("restore", str(tmp_path / "absent.tar"), "--yes", code=None), "absent.tar")


# -- names people really have ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Café Ünïcode & Söhne", 'It\'s "quoted" $HOME #1'])
def test_names_with_spaces_and_accents_deploy(
    engine: None, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    parent = tmp_path_factory.mktemp("a folder with spaces")
    with Project.temporary(parent, project_name=name, organisation=name) as project:
        resolved = project.invoke("config", "--json").stdout
        assert name.split()[0] in resolved or project.name() in resolved
        project.invoke("secret-init")
        assert project.invoke("doctor", code=None).returncode in (0, 1)
