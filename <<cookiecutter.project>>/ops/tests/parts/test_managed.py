"""What a PostgreSQL outside of the stack says to the roles of services, and what is told about it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import Completed, Container
from ops.parts import credentials, postgres, provision
from ops.parts.postgres import managed
from ops.stack import model
from ops.stack.owned import Owned, Role

SHOP = Role("shop", "SHOP_DB_PASSWORD", services=("shop",))
LEDGER = Role("ledger", "LEDGER_DB_PASSWORD", "ledger", ("ledger", "ledger-migrate"))
BACKUP = Role("backup", "BACKUP_DB_PASSWORD", services=("backup",), copies=True)
CLIENT = Container("c1", "acme-prod-postgres-client-1", "postgres-client", 1, "running", "", "", "", "", 0, 0)
REFUSED_BY = "psql: error: connection to server at "


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    secrets = tmp_path / "config/prod/secrets"
    secrets.mkdir(parents=True)
    for role in (SHOP, LEDGER, BACKUP):
        (secrets / role.secret).write_text(f"of {role.name}\n")
    values = {
        "DATABASE_HOSTS": "db1.example.com, db2.example.com:6432",
        "POSTGRES_DB": "appdb",
        "COMPOSE_FILE": "docker-compose.yml:docker-compose.postgres-managed.yml",
    }
    return Environment("prod", tmp_path, tmp_path / "config/prod/.env", secrets, values)


def answer(**changes: Any) -> str:
    return json.dumps({"version": "18.6 (Debian)", "tls": "TLSv1.3", "schema": True, "reads": True, **changes})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A server whose answers a test sets, by role; what it was asked."""
    seen = SimpleNamespace(said={}, asked=[])

    def exec_(_id: str, argv: list[str], *, input: str = "", **_options: Any) -> Completed:
        role = argv[-1].split("user='")[1].split("'")[0]
        seen.asked.append((argv, input))
        said = seen.said.get(role, answer())
        return Completed(argv, 2, "", said) if said.startswith("psql:") else Completed(argv, 0, said, "")

    monkeypatch.setattr(engine, "exec_", exec_)
    return seen


def test_it_is_asked_as_the_role_of_each_service_with_its_password_on_no_command_line(
    env: Environment, server: SimpleNamespace
) -> None:
    found = list(managed.checks(env, Owned(roles=(SHOP, LEDGER), managed=True), CLIENT))
    assert {(each.target, each.status) for each in found} == {("managed", "ok"), ("services", "ok")}
    assert found[0].detail == (
        "managed, PostgreSQL 18.6 at db1.example.com:5432, db2.example.com:6432, takes writes, TLSv1.3"
    )
    assert len(server.asked) == 2
    for argv, text in server.asked:
        assert "host=db1.example.com,db2.example.com port=5432,6432" in argv[-1]
        assert text.startswith("of ") and "of " not in " ".join(argv)
    (wanted,) = [argv[-1] for argv, _ in server.asked if "user='ledger'" in argv[-1]]
    assert "dbname='ledger'" in wanted


@pytest.mark.parametrize(
    ("role", "said", "problem", "remedy"),
    [
        (
            SHOP,
            'FATAL:  password authentication failed for user "shop"',
            "does not accept the password in SHOP_DB_PASSWORD for the role shop",
            'CREATE ROLE "shop"; ALTER ROLE "shop" LOGIN PASSWORD',
        ),
        (
            LEDGER,
            'FATAL:  database "ledger" does not exist',
            "has no database ledger",
            'CREATE DATABASE "ledger" OWNER',
        ),
        (
            SHOP,
            'FATAL:  permission denied for database "appdb"',
            "does not let the role shop into appdb",
            'GRANT CONNECT ON DATABASE "appdb" TO "shop"',
        ),
        (SHOP, "SSL error: certificate verify failed", "certificate verify failed", "config/<env>/postgres/ca.crt"),
        (
            SHOP,
            'server certificate for "db" does not match host name "db1.example.com"',
            "does not match host name",
            "as its certificate does",
        ),
        (SHOP, "server does not support SSL, but SSL was required", "does not support SSL", "DATABASE_SSLMODE=disable"),
        (
            SHOP,
            'FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "shop", database "appdb", no encryption',
            "no encryption",
            "DATABASE_SSLMODE=verify-full",
        ),
        (SHOP, "Connection refused", "Connection refused", "Check DATABASE_HOSTS"),
        (SHOP, "session is read-only", "session is read-only", "takes no writes"),
    ],
)
def test_a_refusal_says_what_to_do(
    env: Environment, server: SimpleNamespace, role: Role, said: str, problem: str, remedy: str
) -> None:
    server.said[role.name] = f'{REFUSED_BY}"db1.example.com" (10.0.0.9), port 5432 failed: {said}'
    owned = Owned(roles=(role,), managed=True)
    (found,) = managed.checks(env, owned, CLIENT)
    assert found.status == "fail" and problem in found.detail and remedy in found.detail
    with pytest.raises(OpsError) as caught:
        provision.look(env, owned, [CLIENT])
    assert caught.value.code == REFUSED and problem in caught.value.message and remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("role", "changes", "problem", "remedy"),
    [
        (SHOP, {"schema": None}, "has no schema shop", 'CREATE SCHEMA "shop" AUTHORIZATION "shop"'),
        (SHOP, {"schema": False}, "does not let the role shop create tables", 'ALTER SCHEMA "shop" OWNER TO "shop"'),
        (LEDGER, {"schema": None}, "", ""),
        (BACKUP, {"reads": False}, "does not let the role backup read", 'GRANT pg_read_all_data TO "backup"'),
        (BACKUP, {"reads": None}, "does not let the role backup read", 'GRANT pg_read_all_data TO "backup"'),
        (BACKUP, {"schema": None}, "", ""),
    ],
)
def test_what_a_role_lacks_there(role: Role, changes: dict[str, Any], problem: str, remedy: str) -> None:
    found = managed.judge(role, "appdb", answer(**changes))
    assert problem in found.problem and bool(found.problem) == bool(problem)
    assert remedy in found.remedy


def test_one_role_that_is_refused_hides_no_other(env: Environment, server: SimpleNamespace) -> None:
    server.said["shop"] = f'{REFUSED_BY}"db1" failed: FATAL:  password authentication failed for user "shop"'
    found = {each.target: each.status for each in managed.checks(env, Owned(roles=(SHOP, LEDGER)), CLIENT)}
    assert found == {"managed": "ok", "shop": "fail"}


def test_what_is_so_for_every_role_is_told_once(env: Environment, server: SimpleNamespace) -> None:
    for role in ("shop", "ledger"):
        server.said[role] = f'{REFUSED_BY}"db1" failed: Connection refused'
    (found,) = managed.checks(env, Owned(roles=(SHOP, LEDGER)), CLIENT)
    assert (found.target, found.status) == ("managed", "fail")


def test_a_connection_without_tls_is_a_warning(env: Environment, server: SimpleNamespace) -> None:
    server.said["shop"] = answer(tls=None)
    found = next(iter(managed.checks(env, Owned(roles=(SHOP,)), CLIENT)))
    assert (found.status, found.detail.endswith("without TLS")) == ("warn", True)


def test_before_the_client_runs_nobody_can_tell(env: Environment) -> None:
    (need,) = provision.look(env, Owned(roles=(SHOP,), managed=True), [])
    assert (need.part, need.service, need.later) == ("PostgreSQL", "shop", True)


def test_the_deploy_asks_again_before_migrations(env: Environment, server: SimpleNamespace) -> None:
    owned = Owned(roles=(SHOP,), managed=True)
    provision.provide(env, owned, [CLIENT], {"PostgreSQL"})
    server.said["shop"] = answer(schema=None)
    with pytest.raises(OpsError, match="has no schema shop"):
        provision.provide(env, owned, [CLIENT], {"PostgreSQL"})


def test_a_deploy_names_everything_that_is_missing_at_once(env: Environment, server: SimpleNamespace) -> None:
    server.said |= {
        role: f'{REFUSED_BY}"db1" failed: FATAL:  password authentication failed for user "{role}"'
        for role in ("shop", "ledger")
    }
    with pytest.raises(OpsError) as caught:
        provision.look(env, Owned(roles=(SHOP, LEDGER), managed=True), [CLIENT])
    assert "SHOP_DB_PASSWORD" in caught.value.message and "LEDGER_DB_PASSWORD" in caught.value.message
    assert caught.value.remedy.count("As its administrator") == 1 and "\n" not in caught.value.remedy
    for statement in ('CREATE SCHEMA "shop" AUTHORIZATION "shop"', 'CREATE DATABASE "ledger" OWNER "ledger"'):
        assert statement in caught.value.remedy


def test_labels_of_services_count_without_a_postgresql_of_the_stack(env: Environment) -> None:
    shop = {"image": "x", "labels": {"ops.schema": "shop"}, "secrets": [{"source": "SHOP_DB_PASSWORD"}]}
    services = {"shop": shop, "postgres-client": {"image": "x", "labels": {"ops.tier": "data"}}}
    found = provision.declared(env, model.parse({"name": "acme-prod", "services": services}))
    assert found.managed and [each.name for each in found.roles] == ["shop"]
    services["backup"] = {"image": "x", "labels": {"ops.part": "backup"}}
    found = provision.declared(env, model.parse({"name": "acme-prod", "services": services}))
    assert [(each.name, each.copies) for each in found.roles] == [("shop", False), ("backup", True)]
    del services["postgres-client"]
    with pytest.raises(OpsError, match="no file of COMPOSE_FILE declares PostgreSQL"):
        provision.declared(env, model.parse({"name": "acme-prod", "services": services}))


def test_commands_for_the_nodes_of_the_stack_say_where_it_is(env: Environment) -> None:
    with pytest.raises(OpsError, match="outside of the stack, at db1.example.com") as caught:
        postgres.primary(env, [CLIENT])
    assert caught.value.code == REFUSED and "invoke shell postgres-client" in caught.value.remedy


def test_a_password_outside_is_not_rotated_here(env: Environment) -> None:
    owned = Owned(roles=(SHOP,), managed=True)
    with pytest.raises(OpsError, match="outside of the stack") as caught:
        credentials.of(env, [CLIENT], "SHOP_DB_PASSWORD", owned).check()
    assert caught.value.code == REFUSED and "ALTER ROLE shop PASSWORD" in caught.value.remedy
