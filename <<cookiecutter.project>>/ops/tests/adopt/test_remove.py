"""Who needs a service that is to go, and what it leaves behind."""

from __future__ import annotations

import pytest

from ops.adopt import remove
from ops.stack.model import Stack


def stack(**entries: dict) -> Stack:
    return Stack("acme-dev", {}, {"services": {"shop": {}, **entries}})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"depends_on": {"shop": {"condition": "service_started"}}}, "web depends on it"),
        ({"network_mode": "service:shop"}, "web shares its network"),
        ({"volumes_from": ["shop:ro"]}, "web uses its volumes"),
        ({"links": ["shop:s"]}, "web is linked to it"),
        ({"environment": {"SHOP_URL": "http://internal:8081/shop"}}, "web calls it (SHOP_URL)"),
    ],
)
def test_who_needs_it_is_named(entry: dict, words: str) -> None:
    assert [found for found in remove.needing(stack(web=entry), "shop") if words in found]


def test_nobody_needs_it() -> None:
    entry = {"depends_on": {"other": {}}, "environment": {"X": "http://workshop:80", "Y": None}}
    assert list(remove.needing(stack(web=entry), "shop")) == []


def test_what_stays_is_named_with_the_command_that_deletes_it(env) -> None:
    (env.project_dir / "services/shop").mkdir(parents=True)
    entry = {
        "build": {"context": str(env.project_dir / "services/shop")},
        "labels": {"ops.database": "shop", "ops.rabbitmq": "shop", "ops.redis": "shop"},
    }
    gone = [("volumes", "shop_data"), ("secrets", "SHOP_DB_PASSWORD")]
    found = dict(remove.remaining(env, {"dev": stack(shop=entry)}, "shop", gone))
    kept = stack(shop=entry, worker=entry)
    assert dict(remove.remaining(env, {"dev": kept}, "shop", [])) == {}, "another service still needs all of it"
    assert dict(remove.still_owned({"dev": kept}, "shop")) == {
        "The database shop of PostgreSQL": ["worker"],
        "The user shop of RabbitMQ": ["worker"],
        "The user shop of Redis": ["worker"],
    }
    assert not dict(remove.still_owned({"dev": stack(shop=entry)}, "shop")), "nobody else owns it"
    assert found["its source, services/shop"] == "git rm -r services/shop"
    assert "DROP DATABASE" in found["its database and role shop in PostgreSQL"]
    assert "delete_user shop" in found["its user shop in RabbitMQ, and its queues"]
    assert "users.sh remove shop" in found["its user shop in Redis, and its keys"]
    assert found["the volume shop_data, with its files"] == "docker volume rm acme-dev_shop_data"
    assert found["the secret SHOP_DB_PASSWORD"] == "rm config/*/secrets/SHOP_DB_PASSWORD"
