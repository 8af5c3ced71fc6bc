"""Migrations only add: while a rollout lasts, the version before works with the new schema (expand, later contract).

One that takes something away says at its top why nothing that runs needs it any more: `contracts = "reason"`.
"""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import migrate

SERVICES = Path(__file__).resolve().parents[2]
MIGRATIONS = sorted(SERVICES.glob("*/*/migrations/[0-9]*.py"))
REMOVING = {"drop_table", "drop_column", "rename_table", "drop_constraint"}
NARROWING = {"new_column_name", "type_"}


def takes_away(source: str) -> Iterator[str]:
    """What a migration does that the version before cannot live with, by line."""
    tree = ast.parse(source)
    if any(isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "contracts" for node in tree.body):
        return
    upgrade = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    for call in (node for node in ast.walk(upgrade) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", "")
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in REMOVING or (name == "alter_column" and (NARROWING & given.keys() or _is(given, "nullable", False))):
            yield f"line {call.lineno}: {name}"
        if name == "add_column" and isinstance(column := call.args[-1], ast.Call):
            inner = {keyword.arg: keyword.value for keyword in column.keywords}
            if _is(inner, "nullable", False) and "server_default" not in inner:
                yield f"line {call.lineno}: add_column without a value for the rows that the version before inserts"


def _is(given: dict[str | None, ast.expr], name: str, value: object) -> bool:
    return isinstance(node := given.get(name), ast.Constant) and node.value is value


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_migration_only_adds(path: Path) -> None:
    assert list(takes_away(path.read_text(encoding="utf-8"))) == []


def test_every_schema_is_looked_at() -> None:
    """Files that are not numbered would be no migrations."""
    folders = {path.parent for path in SERVICES.glob("*/*/migrations/*.py") if path.name != "__init__.py"}
    assert {path.parent for path in MIGRATIONS} == folders


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("op.add_column('items', sa.Column('note', sa.Text))", 0),
        ("op.add_column('items', sa.Column('note', sa.Text, nullable=False, server_default=''))", 0),
        ("op.add_column('items', sa.Column('note', sa.Text, nullable=False))", 1),
        ("op.alter_column('items', 'note', nullable=True)", 0),
        ("op.alter_column('items', 'note', nullable=False)", 1),
        ("op.alter_column('items', 'note', new_column_name='remark')", 1),
        ("op.drop_column('items', 'note')", 1),
        ("op.drop_table('items')", 1),
    ],
)
def test_what_counts_as_taking_away(line: str, count: int) -> None:
    source = f"def upgrade():\n    {line}\n\n\ndef downgrade():\n    op.drop_table('items')\n"
    assert len(list(takes_away(source))) == count
    assert list(takes_away(f"contracts = 'nobody reads it since release 7'\n\n{source}")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_migration_that_is_stopped_did_not_end_well(tmp_path: Path, number: signal.Signals) -> None:
    """Otherwise the next deploy would take it for done."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys, types\n"
        "module = types.ModuleType('stack.migrate')\n"
        f"module.main = lambda: os.kill(os.getpid(), {int(number)})\n"
        "sys.modules['stack.migrate'] = module\n"
    )
    paths = f"{tmp_path}{os.pathsep}{SERVICES / 'common'}"
    line = [sys.executable, "-m", "stack", "migrate"]
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": paths}, timeout=30, check=False)
    assert done.returncode == 128 + number


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def secrets(secrets: Path) -> Path:
    """With the password of the schema that is migrated here."""
    (secrets / "SHOP_DB_PASSWORD").write_text("db\n")
    return secrets


def test_a_wrong_password_is_told_at_once_in_one_sentence(cluster, secrets, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MIGRATE", "shop")
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.standby}:5432,{cluster.primary}:5432")
    monkeypatch.setenv("DATABASE_NAME", "locked")
    monkeypatch.setattr(migrate, "REFUSED_SECONDS", 0.5)
    began = time.monotonic()
    assert migrate.main() == 1
    assert time.monotonic() - began < 15  # of 120 s that it waits for a server
    lines = _lines(capsys)
    assert len(lines) <= 2
    assert str(lines[-1]["event"]).startswith(
        "PostgreSQL does not accept the password in secret SHOP_DB_PASSWORD for the role shop: "
    )
    assert 'password authentication failed for user "shop"' in str(lines[-1]["event"])


def test_a_server_that_is_away_is_told_once_until_the_end(secrets, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("MIGRATE", "shop")
    monkeypatch.setenv("DATABASE_HOSTS", str(tmp_path))
    monkeypatch.setenv("MIGRATE_DEADLINE", "3")
    assert migrate.main() == 1
    lines = _lines(capsys)
    assert [line["level"] for line in lines] == ["warning", "critical"]
    assert "gave up after 3 s" in str(lines[-1]["event"])


def test_a_migration_that_fails_says_why_in_its_last_line(cluster, secrets, monkeypatch, capsys) -> None:
    def broken(service: str, connection) -> None:
        connection.exec_driver_sql("create temporary table users (email text)")
        connection.exec_driver_sql("alter table users add column email text")

    monkeypatch.setenv("MIGRATE", "shop")
    monkeypatch.setenv("DATABASE_HOSTS", f"{cluster.primary}:5432")
    monkeypatch.setattr(migrate, "upgrade", broken)
    assert migrate.main() == 1
    *_, traceback, last = capsys.readouterr().out.splitlines()
    assert "Traceback" in json.loads(traceback)["exception"]
    assert json.loads(last)["event"] == 'migration failed: column "email" of relation "users" already exists'
    assert len(last) < 300


def test_each_service_has_a_password_of_its_own(secrets, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("MIGRATE", "shop, stock")
    monkeypatch.setenv("DATABASE_HOSTS", str(tmp_path))
    with pytest.raises(SystemExit):
        migrate.main()
    assert "secret STOCK_DB_PASSWORD is missing" in str(_lines(capsys)[-1]["event"])


def test_no_service_to_migrate_is_said(secrets, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_HOSTS", str(tmp_path))
    assert migrate.main() == 1
    assert str(_lines(capsys)[-1]["event"]).startswith("setting MIGRATE is missing")
