"""Checking secrets."""

import json
import subprocess

import pytest

from ops import engine
from ops.base import environments
from ops.base.errors import OpsError
from ops.secrets import check, files, make


def write(env, name, value):
    files.replace_file(env.secrets_dir / name, value.encode())


def compose(monkeypatch, document):
    """Let Compose resolve to this."""
    text = json.dumps({"services": {}, **document})
    monkeypatch.setattr(engine, "compose", lambda *_args, **_options: engine.Completed((), 0, text, ""))


def problems(env):
    """(secret, what) of everything that is an error."""
    return {(each.secret, each.what) for each in check.check(env) if each.severity == "error"}


def of(env, name):
    return [each for each in check.check(env) if each.secret == name and each.severity == "error"]


def test_what_was_made_passes(repository):
    assert problems(repository) == set()


def test_what_could_not_be_checked_is_said(made, monkeypatch):
    # The folder of the test may lie inside a repository; this one must look like a project without version control.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(made.project_dir.parent))
    skipped = [each for each in check.check(made) if each.severity == "skipped"]
    assert {each.where for each in skipped} == {"config/dev/secrets", "docker compose config", "docker"}
    assert not check.failed(skipped)


def test_no_secrets_at_all_is_one_finding(env):
    env.secrets_dir.rmdir()
    assert [each.remedy for each in check.check(env)] == ["invoke secret-init --env dev"]


def test_missing_and_empty(repository):
    (repository.secrets_dir / "PATRONI_PASSWORD").unlink()
    write(repository, "REDIS_PASSWORD", "\n")
    assert problems(repository) == {("PATRONI_PASSWORD", "missing"), ("REDIS_PASSWORD", "empty")}


def test_an_optional_one_may_be_empty_until_a_setting_needs_it(repository):
    assert of(repository, "SMTP_PASSWORD") == []
    environments.set_value(repository, "SMTP_USER", "mailer")
    found = of(environments.load("dev", repository.project_dir), "SMTP_PASSWORD")
    assert [each.what for each in found] == ["empty, but SMTP_USER is set"]
    assert found[0].remedy == "install -m 0444 /dev/stdin config/dev/secrets/SMTP_PASSWORD"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("changeme", "everybody knows"),
        ("secure_db_password", "everybody knows"),
        ("acme-dev-password", "everybody knows"),
        ("q7Zt1", "too short"),
        ("abcdefghijklmnopqrstuvwxyz", "too easy to guess"),
        ("a" * 64, "too easy to guess"),
        ("Vf3kQ9zL xT7bN2mR8wY5cH1", "a space"),
        ("Vf3kQ9zLxT7b\nN2mR8wY5cH1", "line break"),
    ],
)
def test_weak_values(repository, value, what):
    write(repository, "POSTGRES_PASSWORD", value)
    found = of(repository, "POSTGRES_PASSWORD")
    assert any(what in each.what for each in found)
    assert all(value not in str(each) for each in found)
    assert found[0].remedy == "invoke secret-rotate POSTGRES_PASSWORD --env dev"


def test_a_value_used_twice(repository):
    write(repository, "PATRONI_PASSWORD", files.read(repository, "KIBANA_ENCRYPTION_KEY"))
    found = {name for name, what in problems(repository) if what.startswith("same value")}
    assert len(found) == 1
    assert found < {"PATRONI_PASSWORD", "KIBANA_ENCRYPTION_KEY"}


def test_a_value_of_another_environment(repository):
    prod = environments.load("prod", repository.project_dir)
    make.init(prod, None)
    write(repository, "PATRONI_PASSWORD", files.read(prod, "PATRONI_PASSWORD"))
    assert ("PATRONI_PASSWORD", "same value as config/prod/secrets/PATRONI_PASSWORD") in problems(repository)
    assert ("PATRONI_PASSWORD", "same value as config/dev/secrets/PATRONI_PASSWORD") in problems(prod)


def test_wrong_modes_and_their_remedies(repository):
    path = repository.secrets_dir / "PATRONI_PASSWORD"
    path.chmod(0o600)
    repository.secrets_dir.chmod(0o755)
    found = [each for each in check.check(repository) if each.what.startswith("mode")]
    assert [(each.secret, each.what) for each in found] == [
        ("*", "mode is 0755, must be 0700"),
        ("PATRONI_PASSWORD", "mode is 0600, must be 0444"),
    ]
    for each in found:
        subprocess.run(each.remedy, shell=True, cwd=repository.project_dir, check=True)
    assert problems(repository) == set()


def test_an_unknown_file_is_pointed_out(repository, monkeypatch):
    (repository.secrets_dir / "PATRONI_PASSWORD~").write_text("old")
    compose(monkeypatch, {})
    (found,) = [each for each in check.check(repository) if each.severity == "warning"]
    assert found.secret == "PATRONI_PASSWORD~"
    assert "rm" not in found.remedy.split(), "it may be a secret that something needs"


def test_tracked_by_git_and_its_remedy(repository, git):
    git("add", "-f", "config/dev/secrets/PATRONI_PASSWORD")
    found = [each for each in of(repository, "PATRONI_PASSWORD") if "tracked" in each.what]
    assert [each.remedy for each in found] == ["git rm --cached config/dev/secrets/PATRONI_PASSWORD"]
    subprocess.run(found[0].remedy, shell=True, cwd=repository.project_dir, check=True, capture_output=True)
    assert problems(repository) == set()


def test_not_ignored_by_git(repository):
    (repository.project_dir / ".gitignore").write_text("")
    assert ("PATRONI_PASSWORD", "not ignored by git") in problems(repository)


def test_a_value_in_the_history_of_git_counts_until_it_is_renewed(repository, git):
    git("add", "-f", "config/dev/secrets/PATRONI_PASSWORD")
    git("commit", "-qm", "oops")
    git("rm", "-q", "--cached", "config/dev/secrets/PATRONI_PASSWORD")
    git("commit", "-qm", "removed")
    (found,) = of(repository, "PATRONI_PASSWORD")
    assert "history" in found.what
    (repository.secrets_dir / "PATRONI_PASSWORD").unlink()
    make.init(repository, None)
    assert problems(repository) == set()


@pytest.mark.parametrize("place", ["config/dev/.env", "docker-compose.override.yml", "services/api/.env"])
def test_a_value_in_a_file_of_the_project(repository, place):
    path = repository.project_dir / place
    path.parent.mkdir(parents=True, exist_ok=True)
    value = files.read(repository, "PATRONI_PASSWORD")
    with path.open("a") as file:
        file.write(f"\nSECRET={value}\n")
    (found,) = of(repository, "PATRONI_PASSWORD")
    assert found.where == place
    assert value not in str(found)


def test_values_in_docker_are_found(repository, monkeypatch, make_container):
    leaked = {
        name: files.read(repository, name) for name in ("PATRONI_PASSWORD", "REDIS_PASSWORD", "REPLICATION_PASSWORD")
    }
    document = {
        "services": {
            "api": {"image": "acme/api:current", "build": {}, "environment": {"X": leaked["PATRONI_PASSWORD"]}},
            "web": {"image": "acme/web:current", "secrets": [{"source": "POSTGRES_PASSWORD"}]},
        }
    }

    def completed(text):
        return engine.Completed((), 0, text, "")

    def docker(*arguments, **_options):
        if arguments[:2] == ("image", "ls"):
            return completed("acme/api:current\n")
        return completed(json.dumps({"CreatedBy": f"ENV P={leaked['REDIS_PASSWORD']}"}))

    monkeypatch.setattr(engine, "compose", lambda *_args, **_options: completed(json.dumps(document)))
    monkeypatch.setattr(engine, "docker", docker)
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("api")])
    inspected = {"Name": "/acme-dev-api-1", "Config": {"Cmd": ["--password", leaked["REPLICATION_PASSWORD"]]}}
    monkeypatch.setattr(engine, "inspect", lambda _ids: [inspected])
    found = {(each.secret, each.where) for each in check.check(repository)}
    assert found == {
        ("PATRONI_PASSWORD", "docker compose config"),
        ("REDIS_PASSWORD", "image acme/api:current"),
        ("REPLICATION_PASSWORD", "container acme-dev-api-1"),
        ("POSTGRES_PASSWORD", "docker compose config: web"),
    }
    for each in check.check(repository):
        assert not any(value in str(each) for value in leaked.values())


def test_the_json_form(repository):
    write(repository, "PATRONI_PASSWORD", "changeme")
    document = check.as_json(repository, check.check(repository))
    assert document["environment"] == "dev"
    assert document["ok"] is False
    assert set(document["findings"][0]) == {"severity", "secret", "what", "where", "remedy", "stops"}


# ── a team's own secrets ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def stripe(repository, monkeypatch):
    """A Compose file declares STRIPE_KEY."""
    compose(monkeypatch, {"secrets": {"STRIPE_KEY": {"file": str(repository.secrets_dir / "STRIPE_KEY")}}})
    return repository


def test_a_declared_secret_is_known(stripe):
    write(stripe, "STRIPE_KEY", "sk_live_51HqXk2eZvKYlo2C0aBcDeFgH")
    assert [each for each in check.check(stripe) if each.severity != "skipped"] == []


def test_a_declared_secret_without_a_file_stops_a_deploy(stripe):
    (found,) = of(stripe, "STRIPE_KEY")
    assert (found.what, found.stops) == ("missing", True)
    assert found.remedy == "install -m 0444 /dev/stdin config/dev/secrets/STRIPE_KEY"


def test_a_declared_secret_must_be_strong(stripe):
    write(stripe, "STRIPE_KEY", "abc")
    assert {each.what for each in of(stripe, "STRIPE_KEY")} == {"too short: 3 characters, at least 8 are needed"}


def test_without_compose_no_file_is_called_unknown(repository):
    """Its advice would be to delete a secret in use."""
    write(repository, "STRIPE_KEY", "sk_live_51HqXk2eZvKYlo2C0aBcDeFgH")
    assert [each for each in check.check(repository) if each.severity == "warning"] == []


# ── white space, interrupted rotations, one cause told once ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{}\r\n", "ends with a carriage return (CRLF)"),
        ("{} ", "white space before or after the value"),
        ("\t{}\n", "white space before or after the value"),
        ("{}\n\n", "white space before or after the value"),
    ],
)
def test_white_space_around_a_value_and_its_remedy(repository, content, what):
    value = files.read(repository, "REDIS_PASSWORD")
    write(repository, "REDIS_PASSWORD", content.format(value))
    (found,) = of(repository, "REDIS_PASSWORD")
    assert found.what == what
    subprocess.run(found.remedy, shell=True, cwd=repository.project_dir, check=True)
    assert (repository.secrets_dir / "REDIS_PASSWORD").read_text() == value
    assert problems(repository) == set()


def test_one_line_break_at_the_end_is_fine(repository):
    write(repository, "REDIS_PASSWORD", files.read(repository, "REDIS_PASSWORD") + "\n")
    assert problems(repository) == set()


@pytest.mark.parametrize("suffix", [".next", ".previous"])
def test_an_interrupted_rotation_stops_a_deploy(repository, suffix):
    write(repository, f"PATRONI_PASSWORD{suffix}", make.generate(check.BY_NAME["PATRONI_PASSWORD"]))
    (found,) = of(repository, "PATRONI_PASSWORD")
    assert found.stops
    assert found.remedy == "invoke secret-rotate PATRONI_PASSWORD --env dev"


def test_a_missing_password_of_rabbitmq_is_told_once(repository):
    (repository.secrets_dir / "RABBITMQ_PASSWORD").unlink()
    assert problems(repository) == {("RABBITMQ_PASSWORD", "missing")}


def test_the_verdict(repository):
    assert check.verdict(repository, []) == "dev's secrets are OK"
    (repository.secrets_dir / "PATRONI_PASSWORD").unlink()
    assert check.verdict(repository, check.check(repository)) == "1 problem found in dev's secrets"


# ── git, and files that are no text ───────────────────────────────────────────────────────────────────────────────────


def test_a_value_in_the_history_outside_of_the_secrets_folder(repository, git):
    path = repository.project_dir / "config/prod/.env"
    before, value = path.read_text(), files.read(repository, "PATRONI_PASSWORD")
    path.write_text(f"{before}KEY={value}\n")
    git("add", "config/prod/.env")
    git("commit", "-qm", "oops")
    path.write_text(before)
    git("commit", "-qam", "removed")
    (found,) = of(repository, "PATRONI_PASSWORD")
    assert "history" in found.what
    assert found.where == "config/prod/.env"


def test_a_binary_in_the_history_and_names_that_are_not_utf8(repository, git):
    folder = repository.project_dir / "config/dev/secrets"
    (folder / "old.p12").write_bytes(bytes(range(256)) * 40)
    korean = repository.project_dir / "한글".encode("cp949").decode("utf-8", "surrogateescape")
    korean.write_text(files.read(repository, "PATRONI_PASSWORD"))
    git("add", "-f", "config/dev/secrets/old.p12")
    git("commit", "-qm", "a binary")
    git("rm", "-q", "config/dev/secrets/old.p12")
    git("commit", "-qm", "removed")
    (found,) = of(repository, "PATRONI_PASSWORD")
    assert found.where == "\\xc7ѱ\\xdb"  # as far as it is UTF-8
    (left_out,) = [each.what for each in check.check(repository) if "not searched" in each.what]
    assert left_out == "copies of values: not searched: 1 binary file"


def test_git_without_an_answer_is_a_finding(repository, monkeypatch):
    def stuck(command, **_options):
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(subprocess, "run", stuck)
    assert "git gave no answer within 60 s" in " ".join(
        each.what for each in check.check(repository) if each.severity == "skipped"
    )


def test_a_folder_where_a_secret_should_be(repository):
    """Docker makes one when it mounts what is not there."""
    path = repository.secrets_dir / "PATRONI_PASSWORD"
    path.unlink()
    path.mkdir()
    with pytest.raises(OpsError, match="is a folder"):
        check.check(repository)
