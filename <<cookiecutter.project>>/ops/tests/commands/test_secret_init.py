"""`invoke secret-init`: what it says of the key of backups."""

from __future__ import annotations

import shutil

import pytest

from ops.base import console
from ops.base.environments import PROJECT_DIR, override
from ops.commands import secrets
from ops.secrets import check, definitions

BACKUPS = "docker-compose.yml:docker-compose.backup.yml"


@pytest.fixture(autouse=True)
def alone(env, monkeypatch) -> None:
    """No engine, and no Compose files to look at."""
    source = env.project_dir / definitions.SOURCE
    source.parent.mkdir(parents=True)
    shutil.copy(PROJECT_DIR / definitions.SOURCE, source)
    monkeypatch.setattr(secrets, "_refuse_beside_another_folder", lambda _: None)
    monkeypatch.setattr(check, "resolved", lambda _: (None, None))


def said(env, capsys, monkeypatch, terminal: bool, files: str = BACKUPS) -> str:
    monkeypatch.setattr(console, "is_terminal", lambda *_: terminal)
    secrets.secret_init(override(env, "COMPOSE_FILE", files))
    return " ".join(capsys.readouterr().out.split())


def test_the_key_of_backups_is_shown_once(env, capsys, monkeypatch) -> None:
    shown = said(env, capsys, monkeypatch, True)
    key = (env.secrets_dir / "BACKUP_KEY").read_text()
    assert f"BACKUP_KEY {key}" in shown and "two places outside of this machine" in shown
    assert key not in said(env, capsys, monkeypatch, True)


def test_a_log_does_not_get_the_key(env, capsys, monkeypatch) -> None:
    shown = said(env, capsys, monkeypatch, False)
    assert (env.secrets_dir / "BACKUP_KEY").read_text() not in shown
    assert "BACKUP_KEY is in " in shown and "two places" in shown


def test_without_backups_nothing_is_said_of_their_key(env, capsys, monkeypatch) -> None:
    assert "nobody can read a backup" not in said(env, capsys, monkeypatch, True, "docker-compose.yml")
