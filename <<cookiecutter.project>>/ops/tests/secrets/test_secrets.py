"""Making and checking secrets."""

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ops import engine, secrets
from ops.base import environments
from ops.base.errors import OpsError
from ops.secrets.catalogue import ALPHABET, BY_NAME, CATALOGUE

DEFINITIONS = {
    "users": [
        {"name": "admin", "password_secret": "RABBITMQ_PASSWORD", "tags": ["administrator"]},
        {"name": "api", "password_secret": "API_RABBITMQ_PASSWORD", "tags": []},
    ],
    "queues": [{"name": "events"}],
}


@pytest.fixture
def env(env, monkeypatch):
    source = env.project_dir / secrets.DEFINITIONS_SOURCE
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps(DEFINITIONS))

    def no_docker(*_args, **_options):
        raise OpsError("The Docker engine does not answer.", "Start it.")

    for name in ("docker", "compose", "containers", "inspect"):
        monkeypatch.setattr(engine, name, no_docker)
    return env


@pytest.fixture
def made(env):
    secrets.init(env)
    return env


@pytest.fixture
def repository(made):
    """The project in a git work tree that ignores the secrets."""
    git(made, "init", "-q")
    (made.project_dir / ".gitignore").write_text("/config/*/secrets/*\n")
    return made


def git(env, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=env.project_dir, check=True, capture_output=True)


def write(env, name, value):
    secrets.replace_file(env.secrets_dir / name, value.encode())


def problems(env):
    """(secret, what) of everything that is an error."""
    return {(each.secret, each.what) for each in secrets.check(env) if each.severity == "error"}


def of(env, name):
    return [each for each in secrets.check(env) if each.secret == name and each.severity == "error"]


# ── making ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_of_them_are_made(env):
    created = secrets.init(env)
    assert created == [*(secret.name for secret in CATALOGUE), secrets.DEFINITIONS]
    assert stat.S_IMODE(env.secrets_dir.stat().st_mode) == 0o700
    values = set()
    for secret in CATALOGUE:
        path = env.secrets_dir / secret.name
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        value = path.read_text()
        assert len(value) == secret.length
        assert set(value) <= set(ALPHABET)
        assert not value.startswith(("-", "_"))
        values.add(value)
    assert len(values) == sum(1 for secret in CATALOGUE if secret.length) + 1
    assert {path.name for path in env.secrets_dir.iterdir()} == {*BY_NAME, secrets.DEFINITIONS}


def test_nothing_is_ever_overwritten(env):
    (env.secrets_dir / "JWT_SECRET").write_text("mine")
    (env.secrets_dir / "REDIS_PASSWORD").write_text("")
    secrets.init(env)
    assert secrets.read(env, "JWT_SECRET") == "mine"
    assert secrets.read(env, "REDIS_PASSWORD") == ""


def test_a_second_run_changes_nothing(made):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.secrets_dir.iterdir()}
    assert secrets.init(made) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.secrets_dir.iterdir()} == before


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(env, umask):
    previous = os.umask(umask)
    try:
        secrets.init(env)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(env.secrets_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in env.secrets_dir.iterdir()} == {0o444}


def test_a_folder_that_knows_no_links_will_do(env, monkeypatch):
    def refuse(*_args):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert len(secrets.init(env)) == len(CATALOGUE) + 1
    assert secrets.init(env) == []


def test_whoever_comes_first_wins(env, monkeypatch):
    """Another process makes the file between the look and the link."""
    link = os.link

    def late(source, target):
        Path(target).write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    target = env.secrets_dir / "JWT_SECRET"
    assert secrets._publish_new(target, b"ours") is False
    assert target.read_text() == "theirs"
    assert [path.name for path in env.secrets_dir.iterdir()] == ["JWT_SECRET"]


def test_the_standard_library_is_enough_to_make_them(env, tmp_path):
    program = (
        "import sys; from pathlib import Path; from ops.secrets import create;"
        "print(len(create(Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    source = env.project_dir / secrets.DEFINITIONS_SOURCE
    ops = Path(secrets.__file__).parents[2]
    # -S: without site-packages
    command = [sys.executable, "-S", "-B", "-c", program, str(tmp_path / "other"), str(source)]
    done = subprocess.run(command, cwd=ops, capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(CATALOGUE) + 1}\n"


# ── RabbitMQ definitions ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hash_is_rabbitmqs():
    # From RabbitMQ's documentation: salt 908D C60A, password test12.
    assert (
        secrets.rabbitmq_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )


def test_definitions_hold_hashes_only(made):
    text = (made.secrets_dir / secrets.DEFINITIONS).read_text()
    document = json.loads(text)
    assert document["queues"] == DEFINITIONS["queues"]
    for user, name in zip(document["users"], ("RABBITMQ_PASSWORD", "API_RABBITMQ_PASSWORD"), strict=True):
        raw = base64.b64decode(user["password_hash"])
        password = secrets.read(made, name)
        assert raw[4:] == hashlib.sha256(raw[:4] + password.encode()).digest()
        assert user["hashing_algorithm"] == "rabbit_password_hashing_sha256"
        assert "password_secret" not in user
        assert password not in text


def test_definitions_change_only_for_what_changed(made):
    path = made.secrets_dir / secrets.DEFINITIONS
    before = json.loads(path.read_text())["users"]
    write(made, "API_RABBITMQ_PASSWORD", "another-" * 5)
    assert secrets.init(made) == [secrets.DEFINITIONS]
    after = json.loads(path.read_text())["users"]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_definitions_follow_their_source(made):
    source = made.project_dir / secrets.DEFINITIONS_SOURCE
    source.write_text(json.dumps({**DEFINITIONS, "queues": []}))
    assert (secrets.DEFINITIONS, "older than the secrets or definitions it is made of") in problems(made)
    assert secrets.init(made) == [secrets.DEFINITIONS]
    assert (secrets.DEFINITIONS, "older than the secrets or definitions it is made of") not in problems(made)


def test_damaged_definitions_are_made_again(made):
    path = made.secrets_dir / secrets.DEFINITIONS
    secrets.replace_file(path, b'{"users": [{"name": "api", "password_hash": "!"}]}')
    assert secrets.init(made) == [secrets.DEFINITIONS]
    assert len(json.loads(path.read_text())["users"]) == 2


@pytest.mark.parametrize("source", ["{", '{"users": [{"name": "x", "password_secret": "NO_SUCH"}]}'])
def test_a_broken_source_is_a_clear_error(made, source):
    (made.project_dir / secrets.DEFINITIONS_SOURCE).write_text(source)
    with pytest.raises(OpsError, match=r"definitions\.json"):
        secrets.init(made)


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_made_passes(repository):
    assert problems(repository) == set()


def test_what_could_not_be_checked_is_said(made, monkeypatch):
    # The folder of the test may lie inside a repository; this one must look like a project without version control.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(made.project_dir.parent))
    skipped = [each for each in secrets.check(made) if each.severity == "skipped"]
    assert {each.where for each in skipped} == {"config/dev/secrets", "docker compose config", "docker"}
    assert not secrets.failed(skipped)


def test_no_secrets_at_all_is_one_finding(env):
    env.secrets_dir.rmdir()
    assert [each.remedy for each in secrets.check(env)] == ["invoke secret-init --env dev"]


def test_missing_and_empty(repository):
    (repository.secrets_dir / "JWT_SECRET").unlink()
    write(repository, "REDIS_PASSWORD", "\n")
    assert problems(repository) == {("JWT_SECRET", "missing"), ("REDIS_PASSWORD", "empty")}


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
        ("Vf3kQ9zL xT7bN2mR8wY5cH1", "blank"),
        ("Vf3kQ9zLxT7b\nN2mR8wY5cH1", "line break"),
    ],
)
def test_weak_values(repository, value, what):
    write(repository, "POSTGRES_PASSWORD", value)
    found = of(repository, "POSTGRES_PASSWORD")
    assert any(what in each.what for each in found)
    assert all(value not in str(each) for each in found)
    assert found[0].remedy == "rm -f config/dev/secrets/POSTGRES_PASSWORD && invoke secret-init --env dev"


def test_a_value_used_twice(repository):
    write(repository, "JWT_SECRET", secrets.read(repository, "KIBANA_ENCRYPTION_KEY"))
    found = {name for name, what in problems(repository) if what.startswith("same value")}
    assert len(found) == 1
    assert found < {"JWT_SECRET", "KIBANA_ENCRYPTION_KEY"}


def test_a_value_of_another_environment(repository):
    prod = environments.load("prod", repository.project_dir)
    secrets.init(prod)
    write(repository, "JWT_SECRET", secrets.read(prod, "JWT_SECRET"))
    assert ("JWT_SECRET", "same value as config/prod/secrets/JWT_SECRET") in problems(repository)
    assert ("JWT_SECRET", "same value as config/dev/secrets/JWT_SECRET") in problems(prod)


def test_wrong_modes_and_their_remedies(repository):
    path = repository.secrets_dir / "JWT_SECRET"
    path.chmod(0o600)
    repository.secrets_dir.chmod(0o755)
    found = [each for each in secrets.check(repository) if each.what.startswith("mode")]
    assert [(each.secret, each.what) for each in found] == [
        ("*", "mode is 0755, must be 0700"),
        ("JWT_SECRET", "mode is 0600, must be 0444"),
    ]
    for each in found:
        subprocess.run(each.remedy, shell=True, cwd=repository.project_dir, check=True)
    assert problems(repository) == set()


def test_an_unknown_file_is_pointed_out(repository):
    (repository.secrets_dir / "JWT_SECRET~").write_text("old")
    assert [each.secret for each in secrets.check(repository) if each.severity == "warning"] == ["JWT_SECRET~"]


def test_tracked_by_git_and_its_remedy(repository):
    git(repository, "add", "-f", "config/dev/secrets/JWT_SECRET")
    found = [each for each in of(repository, "JWT_SECRET") if "tracked" in each.what]
    assert [each.remedy for each in found] == ["git rm --cached config/dev/secrets/JWT_SECRET"]
    subprocess.run(found[0].remedy, shell=True, cwd=repository.project_dir, check=True, capture_output=True)
    assert problems(repository) == set()


def test_not_ignored_by_git(repository):
    (repository.project_dir / ".gitignore").write_text("")
    assert ("JWT_SECRET", "not ignored by git") in problems(repository)


def test_a_value_in_the_history_of_git_counts_until_it_is_renewed(repository):
    git(repository, "add", "-f", "config/dev/secrets/JWT_SECRET")
    git(repository, "commit", "-qm", "oops")
    git(repository, "rm", "-q", "--cached", "config/dev/secrets/JWT_SECRET")
    git(repository, "commit", "-qm", "removed")
    (found,) = of(repository, "JWT_SECRET")
    assert "history" in found.what
    (repository.secrets_dir / "JWT_SECRET").unlink()
    secrets.init(repository)
    assert problems(repository) == set()


@pytest.mark.parametrize("place", ["config/dev/.env", "docker-compose.override.yml", "services/api/.env"])
def test_a_value_in_a_file_of_the_project(repository, place):
    path = repository.project_dir / place
    path.parent.mkdir(parents=True, exist_ok=True)
    value = secrets.read(repository, "JWT_SECRET")
    with path.open("a") as file:
        file.write(f"\nSECRET={value}\n")
    (found,) = of(repository, "JWT_SECRET")
    assert found.where == place
    assert value not in str(found)


@pytest.mark.parametrize("value", ["p$$w%rd/ü\"'\\#-1234567", "Vf3kQ9zLxT7bN2mR8wY5cH1"])
def test_every_spelling_of_a_value_is_found(value):
    texts = [value, json.dumps({"a": value}), f"redis://:{secrets.quote(value, safe='')}@h", value.replace("$", "$$")]
    texts.append(base64.b64encode(value.encode()).decode())
    for text in texts:
        assert list(secrets._leaks({"X": value}, text)) == ["X"]
    assert list(secrets._leaks({"X": value}, "something else")) == []


def test_values_in_docker_are_found(repository, monkeypatch, make_container):
    leaked = {name: secrets.read(repository, name) for name in ("JWT_SECRET", "REDIS_PASSWORD", "API_DB_PASSWORD")}
    document = {
        "services": {
            "api": {"image": "acme/api:current", "build": {}, "environment": {"X": leaked["JWT_SECRET"]}},
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
    inspected = {"Name": "/acme-dev-api-1", "Config": {"Cmd": ["--password", leaked["API_DB_PASSWORD"]]}}
    monkeypatch.setattr(engine, "inspect", lambda _ids: [inspected])
    found = {(each.secret, each.where) for each in secrets.check(repository)}
    assert found == {
        ("JWT_SECRET", "docker compose config"),
        ("REDIS_PASSWORD", "image acme/api:current"),
        ("API_DB_PASSWORD", "container acme-dev-api-1"),
        ("POSTGRES_PASSWORD", "docker compose config: web"),
    }
    for each in secrets.check(repository):
        assert not any(value in str(each) for value in leaked.values())


def test_the_json_form(repository):
    write(repository, "JWT_SECRET", "changeme")
    document = secrets.as_json(repository, secrets.check(repository))
    assert document["environment"] == "dev"
    assert document["ok"] is False
    assert set(document["findings"][0]) == {"severity", "secret", "what", "where", "remedy"}
