import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from stack.settings import DatabaseSettings, Secret, Settings, hosts_of, load


class Example(DatabaseSettings):
    auth_db_password: Secret
    smtp_password: SecretStr = SecretStr("")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", "a")
    monkeypatch.setenv("DATABASE_USER", "auth")


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        load(Example)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert said["level"] == "critical"
    return said["event"]


def test_secrets_come_stripped_from_files(secrets: Path) -> None:
    (secrets / "AUTH_DB_PASSWORD").write_text(" s3cret\n\n")
    assert load(Example).auth_db_password.get_secret_value() == "s3cret"
    assert load(Example).smtp_password.get_secret_value() == ""


def test_secrets_never_come_from_the_environment(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTH_DB_PASSWORD", "from the environment")
    (secrets / "AUTH_DB_PASSWORD").unlink()
    assert "secret AUTH_DB_PASSWORD is missing or empty" in failure(capsys)


def test_a_missing_secret_is_named_with_its_file(secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (secrets / "AUTH_DB_PASSWORD").unlink()
    path = secrets / "AUTH_DB_PASSWORD"
    assert failure(capsys) == f"secret AUTH_DB_PASSWORD is missing or empty: put it into {path}"


def test_an_empty_secret_is_a_missing_one(secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (secrets / "AUTH_DB_PASSWORD").write_text("\n")
    assert "secret AUTH_DB_PASSWORD is missing or empty" in failure(capsys)


def test_all_problems_are_told_at_once(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_HOSTS")
    monkeypatch.setenv("DRAIN_SECONDS", "soon")
    said = failure(capsys)
    assert "setting DATABASE_HOSTS is missing from the environment" in said
    assert "setting DRAIN_SECONDS is not usable" in said


def test_a_secret_is_not_shown(secrets: Path) -> None:
    assert "db" not in repr(load(Example).auth_db_password)


def test_defaults() -> None:
    settings = Settings()
    assert (settings.port, settings.drain_seconds, settings.environment) == (8000, 5, "dev")


def test_hosts() -> None:
    assert hosts_of("a, b:5433,", 5432) == [("a", 5432), ("b", 5433)]
    assert hosts_of("", 5432) == []


def test_a_live_secret_follows_its_file(secrets: Path) -> None:
    (secrets / "AUTH_DB_PASSWORD").write_text("before\n")
    live = load(Example).live("auth_db_password")
    assert live.get_secret_value() == "before"
    (secrets / "AUTH_DB_PASSWORD").write_text("after\n")
    assert live.get_secret_value() == "after"
    assert "after" not in f"{live!r} {live}"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_live_secret_that_cannot_be_read_is_what_it_was(secrets: Path, content: bytes) -> None:
    (secrets / "AUTH_DB_PASSWORD").write_text("before\n")
    live = load(Example).live("auth_db_password")
    (secrets / "AUTH_DB_PASSWORD").write_bytes(content)
    assert live.get_secret_value() == "before"
    (secrets / "AUTH_DB_PASSWORD").unlink()
    assert live.get_secret_value() == "before"
