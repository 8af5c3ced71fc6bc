"""What people get wrong, and what is told them: one sentence, a non-zero exit, nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project, docker, eventually, listening_on


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed, said these words, and said them without a traceback."""
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode != 0
    for word in words:
        assert word in said, said


# -- nothing runs: every refusal comes before any impact -----------------------------------------------------------


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


def test_prod_without_secrets_names_the_command(untouched: Project) -> None:
    refused(untouched.invoke("deploy", "--env", "prod", code=3), "invoke secret-init --env prod")


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


def test_port_taken(untouched: Project) -> None:
    port = int(untouched.settings()["SSL_PORT"])
    with listening_on(port):
        refused(untouched.invoke("deploy", code=3), str(port), "SSL_PORT")


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


# -- a stack that runs ------------------------------------------------------------------------------------------------


def test_ctrl_c_during_deploy_then_deploy_again(project: Project) -> None:
    project.invoke("secret-init")
    code, output = project.interrupted("deploy", after=6)
    assert code == 130, output
    assert "Traceback" not in output and "invoke deploy" in output
    project.invoke("deploy")
    assert project.health()["healthy"] is True
    leftovers = [name for name in project.containers() if not name.startswith(project.name())]
    assert leftovers == []


def test_killed_during_deploy_then_deploy_again(project: Project) -> None:
    project.set(LOG_LEVEL="info")  # every service of ours is recreated
    code, _ = project.interrupted("deploy", after=4, how=signal.SIGKILL)
    assert code == -signal.SIGKILL
    project.invoke("deploy")
    assert project.health()["healthy"] is True


def test_a_second_deploy_at_the_same_time_is_refused(project: Project) -> None:
    project.set(LOG_LEVEL="warning")
    first = project.start("deploy")
    time.sleep(2)
    refused(project.invoke("deploy", code=3), "dev is being changed: invoke deploy --env dev by", "invoke unlock")
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output


def test_a_service_that_never_gets_healthy_is_named_with_its_reason(project: Project) -> None:
    broken = project.folder / "services/web/web/__init__.py"
    good = broken.read_text()
    serving = {name: number for name, number in project.containers().items() if "-migrate-" not in name}
    settings = project.env_file().read_text()
    broken.write_text(good + '\nraise RuntimeError("the flux capacitor is missing")\n')
    # The image of dev waits for a mended file instead of ending, so this is what ends the wait here.
    project.env_file().write_text(f"{settings}\nDEPLOY_TIMEOUT=15\n")
    try:
        done = project.invoke("deploy", code=7)
        refused(done, "web", "the flux capacitor is missing", "The old containers serve on")
        assert serving.items() <= project.containers().items()
        assert project.health()["healthy"] is True
    finally:
        broken.write_text(good)
        project.env_file().write_text(settings)
    project.invoke("deploy")
    assert project.health()["healthy"] is True


def test_health_tells_what_is_down(project: Project) -> None:
    (replica,) = [name for name in project.containers() if "postgres-replica" in name]
    docker("stop", replica)
    try:
        report = project.health(code=1)
        assert report["healthy"] is False
        failing = [f"{check['name']} {check['target']}" for check in report["checks"] if check["status"] != "ok"]
        assert any("postgres-replica" in name for name in failing), failing
    finally:
        docker("start", replica)
    eventually(lambda: project.health(code=None)["healthy"], 60, "health after the replica came back")


def test_restore_refuses_a_truncated_archive_before_touching_anything(project: Project, tmp_path: Path) -> None:
    project.invoke("backup")
    (archive,) = (project.folder / "backups/dev").glob("*.tar")
    damaged = tmp_path / archive.name
    shutil.copy(archive, damaged)
    os.truncate(damaged, damaged.stat().st_size // 2)
    before = project.containers()
    refused(project.invoke("restore", str(damaged), "--yes", code=None), damaged.name)
    assert project.containers() == before
    assert project.health()["healthy"] is True


def test_restore_asks_first(project: Project) -> None:
    (archive,) = (project.folder / "backups/dev").glob("*.tar")
    refused(project.invoke("restore", str(archive), code=None, stdin="no\n"))
    assert project.health()["healthy"] is True


def test_a_container_that_was_killed_is_brought_back_by_deploy(project: Project) -> None:
    (victim,) = [name for name in project.containers() if "auth-service" in name]
    docker("kill", victim)
    time.sleep(1)
    docker("stop", victim, check=False)
    assert project.health(code=1)["healthy"] is False
    project.invoke("deploy")
    assert project.health()["healthy"] is True


# -- names people really have ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Café Ünïcode & Söhne", 'It\'s "quoted" $HOME #1'])
def test_names_with_spaces_and_accents_deploy(
    engine: None, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    parent = tmp_path_factory.mktemp("a folder with spaces")
    project = Project.bake(parent, project_name=name, organisation=name)
    try:
        resolved = project.invoke("config", "--json").stdout
        assert name.split()[0] in resolved or project.name() in resolved
        project.invoke("secret-init")
        assert project.invoke("doctor", code=None).returncode in (0, 1)
    finally:
        project.remove()
