"""What labels of the services claim in the data tier, and which claims are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ops.base.errors import USAGE, OpsError
from ops.stack import owned
from ops.stack.model import Stack
from ops.stack.owned import RedisUser, Role, User, Volume


def service(secrets: str = "", volumes: str = "", **labels: str) -> dict[str, Any]:
    """An entry of the resolved configuration; in names of labels a _ stands for a dot."""
    return {
        "labels": {f"ops.{name.replace('_', '.')}": value for name, value in labels.items()},
        "secrets": [{"source": name} for name in secrets.split()],
        "volumes": [{"type": "volume", "source": name, "target": f"/{name}"} for name in volumes.split()],
    }


def declared(**services: dict[str, Any]) -> owned.Owned:
    volumes = {"uploads": {"name": "acme-dev_uploads"}}
    return owned.declared(Stack("", {}, {"services": services, "volumes": volumes}), "root", "appdb")


def test_everything_that_a_service_can_own() -> None:
    found = declared(
        shop=service("SHOP_DB_PASSWORD SHOP_RABBITMQ_PASSWORD", "uploads cache", schema="shop", rabbitmq="shop",
                     rabbitmq_definitions="services/shop/rabbitmq.json", backup="uploads"),
        blog=service("MY_BLOG_DB_PASSWORD", database="my-blog"),
        hello=service(),
        cache=service(volumes="dump", part="cache"),
    )  # fmt: skip
    assert found.roles == (
        Role("my-blog", "MY_BLOG_DB_PASSWORD", "my-blog", ("blog",)),
        Role("shop", "SHOP_DB_PASSWORD", "", ("shop",)),
    )
    assert [(role.schema, role.label) for role in found.roles] == [("", owned.DATABASE), ("shop", owned.SCHEMA)]
    assert found.databases == ("my-blog",)
    assert found.users == (User("shop", "SHOP_RABBITMQ_PASSWORD", ("services/shop/rabbitmq.json",), ("shop",)),)
    assert found.volumes == (Volume("uploads", "acme-dev_uploads", "shop"),)
    assert found.not_backed_up == ("cache",), "a volume of a part is not the team's"
    assert found.secrets == {
        "MY_BLOG_DB_PASSWORD": "PostgreSQL role my-blog",
        "SHOP_DB_PASSWORD": "PostgreSQL role shop",
        "SHOP_RABBITMQ_PASSWORD": "RabbitMQ user shop",
    }


def test_two_services_share_a_role_that_both_claim() -> None:
    found = declared(shop=service("SHOP_DB_PASSWORD", schema="shop"), worker=service("SHOP_DB_PASSWORD", schema="shop"))
    assert [role.services for role in found.roles] == [("shop", "worker")]


def test_a_volume_that_two_services_claim_is_refused() -> None:
    shop, worker = service(volumes="uploads", backup="uploads"), service(volumes="uploads")
    assert declared(shop=shop, worker=worker).volumes == (Volume("uploads", "acme-dev_uploads", "shop"),)
    with pytest.raises(OpsError, match='worker has the label ops.backup: "uploads"; shop names uploads too') as caught:
        declared(shop=shop, worker=service(volumes="uploads", backup="uploads"))
    assert caught.value.code == USAGE


def test_one_volume_under_two_names_is_refused() -> None:
    services = {"shop": service(volumes="uploads", backup="uploads"), "worker": service(volumes="u", backup="u")}
    volumes = {"uploads": {"name": "acme-dev_uploads"}, "u": {"name": "acme-dev_uploads"}}
    with pytest.raises(
        OpsError, match="u of shop is the same volume|uploads of shop is|u of worker is the same volume"
    ):
        owned.declared(Stack("", {}, {"services": services, "volumes": volumes}))


def test_a_user_of_redis() -> None:
    found = declared(
        shop=service("SHOP_REDIS_PASSWORD", redis="shop"), jobs=service("SHOP_REDIS_PASSWORD", redis="shop")
    )
    assert found.redis_users == (RedisUser("shop", "SHOP_REDIS_PASSWORD", ("shop", "jobs")),)
    assert found.secrets == {"SHOP_REDIS_PASSWORD": "Redis user shop"}


@pytest.mark.parametrize("name", ["", "Shop", "a b", "default", "operator", "sentinel"])
def test_names_that_redis_or_the_stack_has_are_refused(name: str) -> None:
    with pytest.raises(OpsError, match=f'shop has the label ops.redis: "{name}"'):
        declared(shop=service(owned.secret_of(name, "REDIS"), redis=name))


def test_a_user_of_redis_needs_its_secret() -> None:
    with pytest.raises(OpsError, match="cannot read its password, the secret SHOP_REDIS_PASSWORD"):
        declared(shop=service("REDIS_PASSWORD", redis="shop"))


@pytest.mark.parametrize("label", ["schema", "database"])
@pytest.mark.parametrize(
    "name",
    ["", "Shop", "1shop", "shop;", "a" * 31, "public", "pg_shop", "postgres", "replicator", "backup", "metrics",
     "services", "root", "appdb", "template1"],
)  # fmt: skip
def test_names_that_postgresql_or_the_stack_has_are_refused(label: str, name: str) -> None:
    secret = owned.secret_of(name, "DB")
    with pytest.raises(OpsError, match=f'shop has the label ops.{label}: "{name}"') as caught:
        declared(shop=service(secret, **{label: name}))
    assert caught.value.code == USAGE


@pytest.mark.parametrize("name", ["guest", "admin", "a b", ""])
def test_users_that_rabbitmq_has_are_refused(name: str) -> None:
    with pytest.raises(OpsError, match="shop has the label ops.rabbitmq"):
        declared(shop=service(owned.secret_of(name, "RABBITMQ"), rabbitmq=name))


def test_who_cannot_read_the_password_is_told_how() -> None:
    with pytest.raises(OpsError, match="the secret SHOP_DB_PASSWORD") as caught:
        declared(shop=service(schema="shop"))
    assert 'file: "./config/${ENVIRONMENT}/secrets/SHOP_DB_PASSWORD"' in caught.value.remedy


def test_a_schema_and_a_database_of_one_name_are_refused() -> None:
    with pytest.raises(OpsError, match="shop has a schema of that name"):
        declared(shop=service("SHOP_DB_PASSWORD", schema="shop"), blog=service("SHOP_DB_PASSWORD", database="shop"))


def test_two_names_with_one_secret_are_refused() -> None:
    with pytest.raises(OpsError, match="whose secret has the same name"):
        declared(
            one=service("MY_SHOP_DB_PASSWORD", schema="my-shop"), two=service("MY_SHOP_DB_PASSWORD", schema="my_shop")
        )


@pytest.mark.parametrize("file", ["/etc/passwd", "../other/rabbitmq.json"])
def test_definitions_are_files_of_the_project(file: str) -> None:
    with pytest.raises(OpsError, match="within the project"):
        declared(shop=service("SHOP_RABBITMQ_PASSWORD", rabbitmq="shop", rabbitmq_definitions=file))


def test_definitions_need_a_user() -> None:
    with pytest.raises(OpsError, match="needs the label ops.rabbitmq"):
        declared(shop=service(rabbitmq_definitions="services/shop/rabbitmq.json"))


@pytest.mark.parametrize(
    ("backup", "why"),
    [("nothing", "mounts no volume nothing: it mounts uploads"), ("", r"mounts no volume \(empty\)"),
     ("uploads,", r"mounts no volume \(empty\)")],
)  # fmt: skip
def test_a_volume_that_the_service_does_not_mount_is_refused(backup: str, why: str) -> None:
    with pytest.raises(OpsError, match=why):
        declared(shop=service(volumes="uploads", backup=backup))


def test_a_volume_of_a_part_is_refused() -> None:
    with pytest.raises(OpsError, match="belongs to postgres, which is a part of the stack"):
        declared(shop=service(volumes="data", backup="data"), postgres=service(volumes="data", part="postgres"))


def test_a_part_owns_nothing() -> None:
    with pytest.raises(OpsError, match="for services of your own"):
        declared(postgres=service("X_DB_PASSWORD", part="postgres", schema="x"))


def test_what_a_restore_may_leave_running_is_said_in_one_word() -> None:
    declared(shop=service(restore="running"))
    with pytest.raises(OpsError, match='shop has the label ops.restore: "yes"; it must be running'):
        declared(shop=service(restore="yes"))
