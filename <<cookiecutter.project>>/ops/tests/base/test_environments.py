"""Environments: which there are, what their files say, and what is wrong with them, by line."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from ops import engine
from ops.base import environments
from ops.base.errors import USAGE, OpsError

DotEnv = pytest.importorskip("dotenv").dotenv_values


@pytest.mark.parametrize(("given", "name"), [("dev", "dev"), ("development", "dev"), ("production", "prod")])
def test_names_and_aliases(project: Path, given: str, name: str) -> None:
    env = environments.load(given, project)
    assert (env.name, env.project) == (name, f"acme-{name}")
    assert env.secrets_dir == project / "config" / name / "secrets"


def test_an_environment_named_like_an_alias_wins(project: Path) -> None:
    text = (project / "config/prod/.env").read_text().replace("=prod", "=production").replace("-prod", "-production")
    (project / "config/production").mkdir()
    (project / "config/production/.env").write_text(text)
    assert environments.load("production", project).name == "production"


@pytest.mark.parametrize("name", ["live", "", "../config/dev", "dev/../prod"])
def test_an_unknown_environment_is_told_which_exist(project: Path, name: str) -> None:
    with pytest.raises(OpsError) as caught:
        environments.load(name, project)
    assert caught.value.code == USAGE
    assert "dev, staging, prod" in caught.value.remedy


def test_a_folder_without_settings(project: Path) -> None:
    (project / "config/prod/.env").unlink()
    with pytest.raises(OpsError, match=r"^config/prod/\.env is missing") as caught:
        environments.load("production", project)
    assert caught.value.code == USAGE


def test_settings_of_another_environment_are_refused(project: Path) -> None:
    (project / "config/prod/.env").write_text((project / "config/dev/.env").read_text())
    with pytest.raises(OpsError, match='ENVIRONMENT is "dev", but the folder is "prod"'):
        environments.load("prod", project)


@pytest.mark.parametrize("key", ["COMPOSE_PROJECT_NAME", "COMPOSE_FILE"])
def test_what_every_command_needs(project: Path, key: str) -> None:
    path = project / "config/dev/.env"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(key)))
    with pytest.raises(OpsError, match=f"{key} is not set"):
        environments.load("dev", project)


GOOD = """\
# a comment

PLAIN=value
  INDENTED=1
EMPTY=
BLANKS=two words
COMMENTED=value # not part of it
HASH=a#b
QUOTED="a # b"  # a comment
SINGLE='it is "so"'
REFERENCE=${PLAIN}/x-${HASH}
INSIDE="${PLAIN} there"
EQUALS=a=b
URL=https://${PLAIN}:8443/?a=1
"""


def test_values() -> None:
    values = environments.parse(GOOD, ".env")
    assert values["REFERENCE"] == "value/x-a#b"
    assert values["QUOTED"] == "a # b"
    assert values["EMPTY"] == ""


def test_python_dotenv_reads_the_same() -> None:
    assert environments.parse(GOOD, ".env") == DotEnv(stream=io.StringIO(GOOD))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("PORT", "PORT.* is not NAME=value"),
        ("PORT = 1", "is not NAME=value"),
        ("export PORT=1", "is not NAME=value"),
        ("1PORT=1", "is not NAME=value"),
        ("FIRST=again", "FIRST is already set in line 1"),
        ('QUOTE="open', "the value of QUOTE is not understood"),
        ("QUOTE=it's", "the value of QUOTE is not understood"),
        ("SLASH=a\\b", "the value of SLASH is not understood"),
        ("COMMENT= # nothing", "the value of COMMENT is not understood"),
        ("DOLLAR=$FIRST", r"a \$ that is not a \$\{NAME\}"),
        ("DOLLAR='${FIRST}'", r"a \$ that is not a \$\{NAME\}"),
        ("DOLLAR=${FIRST:-x}", r"a \$ that is not a \$\{NAME\}"),
        ("LATER=${UNKNOWN}", "LATER refers to UNKNOWN, which is not set above it"),
        ("LOGGING_ENABLED=yes", 'LOGGING_ENABLED must be true or false, not "yes"'),
        ("LOGGING_ENABLED=True", "must be true or false"),
    ],
)
def test_a_line_that_would_not_mean_the_same_to_everybody_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(OpsError, match=rf"^\.env:2: .*{complaint}") as caught:
        environments.parse(f"FIRST=1\n{line}\n", ".env")
    assert caught.value.code == USAGE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("WEB_REPLICAS=2\n", "WEB_REPLICAS=5\n"),
        ("WEB_REPLICAS=2 # two\nX=1\n", "WEB_REPLICAS=5 # two\nX=1\n"),
        ('WEB_REPLICAS="2"\n', "WEB_REPLICAS=5\n"),
        ("# WEB_REPLICAS=9\nWEB_REPLICAS=\n", "# WEB_REPLICAS=9\nWEB_REPLICAS=5\n"),
        ("X=1", "X=1\nWEB_REPLICAS=5\n"),
        ("WEB_REPLICAS=hello big world\nX=1\n", "WEB_REPLICAS=5\nX=1\n"),
        ("WEB_REPLICAS=a b#c  # three\n", "WEB_REPLICAS=5  # three\n"),
        ("WEB_REPLICAS=2  \nX=1\n", "WEB_REPLICAS=5  \nX=1\n"),
        ("Y=1\r\nWEB_REPLICAS=2 # two\r\nX=1\r\n", "Y=1\r\nWEB_REPLICAS=5 # two\r\nX=1\r\n"),
    ],
)
def test_setting_a_value_changes_that_line_only(project: Path, before: str, after: str) -> None:
    path = project / "config/dev/.env"
    head = "COMPOSE_PROJECT_NAME=acme-dev\nCOMPOSE_FILE=docker-compose.yml\n"
    path.write_bytes((head + before).encode())
    path.chmod(0o640)
    changed = environments.set_value(environments.load("dev", project), "WEB_REPLICAS", "5")
    assert path.read_bytes().decode() == head + after
    assert changed.values["WEB_REPLICAS"] == "5"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir() if each.is_file()] == [".env"]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "٣"])
def test_a_setting_that_is_no_number(env: environments.Environment, value: str) -> None:
    env.values["DEPLOY_TIMEOUT"] = value
    with pytest.raises(OpsError, match="DEPLOY_TIMEOUT must be a whole number"):
        env.number("DEPLOY_TIMEOUT", 180)
    assert env.number("ABSENT", 180) == 180


def test_an_override_is_for_compose_and_not_for_the_file(env: environments.Environment) -> None:
    text = env.env_file.read_text()
    other = environments.override(env, "IMAGE_TAG", "other")
    assert (other.values["IMAGE_TAG"], env.values["IMAGE_TAG"]) == ("other", "current")
    assert engine.child_environment(other, {"IMAGE_TAG": "of the shell"}) == {"IMAGE_TAG": "other"}
    assert env.env_file.read_text() == text


def test_a_setting_as_it_stands(env: environments.Environment) -> None:
    assert environments.raw_value(env, "COMPOSE_PROFILES") == "monitoring-${MONITORING_ENABLED}"
    assert environments.raw_value(env, "ABSENT") == ""


# ── several environments, several people ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["acme-prod", "acme-${ENVIRONMENT}"])
def test_a_copied_environment_may_not_take_over_its_source(project: Path, name: str) -> None:
    shutil.copytree(project / "config/prod", project / "config/qa2")
    file = project / "config/qa2/.env"
    text = file.read_text().replace("ENVIRONMENT=prod", "ENVIRONMENT=qa2")
    file.write_text(text.replace("COMPOSE_PROJECT_NAME=acme-prod", f"COMPOSE_PROJECT_NAME={name}"))
    if "$" in name:
        assert environments.load("qa2", project).project == "acme-qa2"
        assert environments.load("prod", project).project == "acme-prod"
        return
    for wanted in ("qa2", "prod"):
        with pytest.raises(OpsError, match="have the same COMPOSE_PROJECT_NAME") as caught:
            environments.load(wanted, project)
        assert caught.value.code == USAGE
        assert "config/qa2/.env" in caught.value.message and "config/prod/.env" in caught.value.message


@pytest.mark.parametrize("content", [b"\xff", b"COMPOSE_PROJECT_NAME", b"'"])
def test_a_broken_environment_is_no_obstacle_to_the_others(project: Path, content: bytes) -> None:
    (project / "config/staging/.env").write_bytes(content)
    assert environments.load("dev", project).name == "dev"


def test_a_file_of_another_encoding_is_a_sentence(project: Path) -> None:
    file = project / "config/dev/.env"
    file.write_bytes(file.read_bytes() + "ADMIN=Jürgen\n".encode("latin-1"))
    with pytest.raises(OpsError, match=r"config/dev/\.env:\d+: not UTF-8 text") as caught:
        environments.load("dev", project)
    lines = file.read_bytes().splitlines()
    assert f":{len(lines)}:" in caught.value.message


def test_a_file_that_one_may_not_read_is_a_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", deny)
    with pytest.raises(OpsError, match=r"config/dev/\.env cannot be read: Permission denied"):
        environments.load("dev", project)


def test_logs_are_beside_the_project(env) -> None:
    log = env.log_file("up.log")
    assert log == env.project_dir / ".state/dev/up.log"
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_logs_of_a_second_user_are_in_their_cache(env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (env.project_dir / ".state").write_text("stands for a folder that cannot be written to")
    assert env.log_file("up.log") == tmp_path / "cache/acme-dev/up.log"
    (tmp_path / "cache").rename(tmp_path / "old")
    (tmp_path / "cache").write_text("")
    with pytest.raises(OpsError, match="cannot be written to"):
        env.log_file("up.log")


def test_a_log_that_somebody_else_owns_is_not_written_to(env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    env.log_file("other.log").with_name("up.log").mkdir()
    assert env.log_file("up.log") == tmp_path / "cache/acme-dev/up.log"


def with_settings(project: Path, text: str) -> None:
    with (project / "config/prod/.env").open("a") as file:
        file.write(text)


def test_without_a_word_the_engine_is_docker(project: Path) -> None:
    assert environments.load("prod", project).engine == environments.DOCKER


def test_a_cluster_is_named_by_its_context(project: Path) -> None:
    with_settings(project, "ENGINE=kubernetes\n")
    with pytest.raises(OpsError, match="KUBE_CONTEXT is not set") as caught:
        environments.load("prod", project)
    assert caught.value.code == USAGE
    with_settings(project, "KUBE_CONTEXT=acme\n")
    found = environments.load("prod", project)
    assert (found.engine, found.namespace) == (environments.KUBERNETES, "acme-prod")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ENGINE=swarm\n", "ENGINE must be docker or kubernetes"),
        ("ENGINE=kubernetes\nKUBE_CONTEXT=a\nKUBE_NAMESPACE=Acme_Prod\n", "cannot be the name of a namespace"),
    ],
)
def test_an_engine_and_a_namespace_that_cannot_be_are_refused(project: Path, text: str, words: str) -> None:
    with_settings(project, text)
    with pytest.raises(OpsError, match=words) as caught:
        environments.load("prod", project)
    assert caught.value.code == USAGE
