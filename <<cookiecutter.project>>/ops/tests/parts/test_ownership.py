"""What the servers lack of what services declare; that the statements do what they say is tried on real ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from ops.base.errors import FAILED, REFUSED, USAGE, OpsError
from ops.parts import postgres, provision, redis
from ops.parts.postgres import ownership as databases
from ops.parts.provision import Need
from ops.parts.rabbitmq import ownership as broker
from ops.parts.redis import ownership as cache
from ops.secrets import definitions
from ops.stack.model import Service, Stack
from ops.stack.owned import Owned, RedisUser, Role, User

SHOP = Role("shop", "SHOP_DB_PASSWORD", services=("shop",))
BLOG = Role("blog", "BLOG_DB_PASSWORD", "blog", ("blog",))
PASSWORD = r"""a\b"c'd$e %s"""
READER = User("shop", "SHOP_RABBITMQ_PASSWORD", ("services/shop/rabbitmq.json",), ("shop",))


def verifier(password: str) -> str:
    """As PostgreSQL makes it (RFC 5803)."""
    salt = b"0123456789abcdef"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256$4096:{salt64}${stored64}:{server64}"


def there(**changes: Any) -> dict[str, Any]:
    """What a server says of a role that is as declared."""
    settings = ["search_path", *databases.LIMITS]
    usual = {"password": verifier(PASSWORD), "login": True, "superuser": False, "settings": settings}
    return {**usual, "member": True, "connects": True, **changes}


def found(**roles: dict[str, Any]) -> dict[str, Any]:
    return {
        "roles": roles,
        "schemas": {name: name for name in roles},
        "databases": {"blog": {"owner": "blog", "public": False}} if "blog" in roles else {},
    }


def lacks(role: Role, seen: dict[str, Any], password: str = PASSWORD) -> list[str]:
    return [step.cause for step in databases.steps(role, seen, "appdb", password)]


def test_nothing_is_missing() -> None:
    assert lacks(SHOP, found(shop=there())) == []
    assert lacks(BLOG, found(blog=there())) == []


def test_everything_is_missing() -> None:
    steps = databases.steps(SHOP, found(), "appdb", PASSWORD)
    assert {step.cause for step in steps} == {"PostgreSQL has no role shop with a schema"}
    assert [step.statement for step in steps] == [
        'CREATE ROLE "shop"',
        """ALTER ROLE "shop" LOGIN PASSWORD 'a\\b"c''d$e %s'""",
        'GRANT services TO "shop"',
        'GRANT CONNECT ON DATABASE "appdb" TO "shop"',
        'CREATE SCHEMA "shop" AUTHORIZATION "shop"',
        'ALTER ROLE "shop" SET search_path = "shop"',
        *(f"ALTER ROLE \"shop\" SET {key} = '{value}'" for key, value in databases.LIMITS.items()),
    ]
    steps = databases.steps(BLOG, found(), "appdb", PASSWORD)
    assert [step.statement for step in steps if step.alone] == [
        'CREATE DATABASE "blog" OWNER "blog" TEMPLATE template0',
        'REVOKE ALL ON DATABASE "blog" FROM PUBLIC',
    ]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"password": ""}, "PostgreSQL does not accept the password in SHOP_DB_PASSWORD"),
        ({"login": False}, "PostgreSQL does not accept the password in SHOP_DB_PASSWORD"),
        ({"password": verifier("another")}, "PostgreSQL does not accept the password in SHOP_DB_PASSWORD"),
        ({"member": False}, "role shop may not connect yet"),
        ({"connects": False}, "role shop may not connect to appdb"),
        ({"settings": [*databases.LIMITS]}, "role shop has no search path"),
        ({"settings": ["search_path", "statement_timeout"]}, "role shop has no limits"),
    ],
)
def test_what_a_role_lacks(changes: dict[str, Any], cause: str) -> None:
    assert set(lacks(SHOP, found(shop=there(**changes)))) == {cause}


def test_a_schema_or_a_database_that_is_gone() -> None:
    assert lacks(SHOP, {**found(shop=there()), "schemas": {}}) == ["PostgreSQL has no schema shop"]
    gone = {**found(blog=there()), "databases": {}}
    assert lacks(BLOG, gone) == ["PostgreSQL has no database blog", "database blog is open to every role"]


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (found(shop=there(superuser=True)), "the role shop is a superuser"),
        ({**found(shop=there()), "schemas": {"shop": "admin"}}, "the schema shop belongs to admin"),
        ({**found(), "schemas": {"shop": "admin"}}, "the schema shop belongs to admin"),
    ],
)
def test_what_belongs_to_somebody_else_is_refused(seen: dict[str, Any], what: str) -> None:
    with pytest.raises(OpsError, match=f"for shop: {what}") as caught:
        lacks(SHOP, seen)
    assert caught.value.code == REFUSED


def test_a_database_of_somebody_else_is_refused() -> None:
    seen = {**found(blog=there()), "databases": {"blog": {"owner": "admin", "public": False}}}
    with pytest.raises(OpsError, match="the database blog belongs to admin"):
        lacks(BLOG, seen)


def test_a_missing_secret_says_nothing_about_a_password() -> None:
    assert lacks(SHOP, found(shop=there()), password="") == []


@pytest.mark.parametrize("text", ["", "md5abc", "SCRAM-SHA-256$x:y$z", "SCRAM-SHA-256$4096:!$!:!"])
def test_a_verifier_of_another_kind_accepts_nothing(text: str) -> None:
    assert not databases.accepts(text, PASSWORD)


def test_all_is_one_transaction_but_for_a_database() -> None:
    text = databases.script(databases.steps(BLOG, found(), "appdb", PASSWORD))
    begin, commit = text.index("BEGIN;"), text.index("COMMIT;")
    assert begin < text.index('CREATE ROLE "blog"') < text.index("GRANT services") < commit
    assert text.index("CREATE DATABASE") > commit
    assert text.index("log_min_error_statement = panic") < begin, "a failed statement would show the password"


# ── RabbitMQ ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def write(env):
    """Writes the definitions file of shop, and returns what its user owns then."""

    def run(document: Any) -> broker.Definitions:
        path = env.project_dir / READER.definitions[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return broker.declared(env.project_dir, Owned(users=(READER,)))[READER]

    return run


def test_what_may_be_left_out(write) -> None:
    found = write({"queues": [{"name": "shop.orders"}], "exchanges": [{"name": "shop", "type": "topic"}]})
    assert found["queues"] == [
        {"vhost": "/", "name": "shop.orders", "durable": True, "auto_delete": False,
         "arguments": {"x-queue-type": "quorum"}}
    ]  # fmt: skip
    assert found["exchanges"][0]["durable"] is True
    (permission,) = found["permissions"]
    assert (permission["user"], permission["configure"]) == ("shop", "^shop([._-].*)?$")


def test_a_user_without_a_file_has_what_bears_its_name(tmp_path: Path) -> None:
    found = broker.declared(tmp_path, Owned(users=(User("shop", "X", (), ("shop",)),)))
    assert [each["user"] for definitions in found.values() for each in definitions["permissions"]] == ["shop"]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ("{", "is not valid JSON"),
        ([], "must be a JSON object"),
        ({"users": []}, "users have no place in it"),
        ({"parameters": []}, "parameters has no place in it"),
        ({"queues": ["orders"]}, "every entry of queues must be a JSON object"),
        ({"queues": [{}]}, "a queue lacks name"),
        ({"queues": [{"name": "amq.mine"}]}, "RabbitMQ's own"),
        ({"queues": [{"name": "orders", "vhost": "other"}]}, "one virtual host"),
        (
            {"permissions": [{"user": "admin", "configure": ".*", "write": ".*", "read": ".*"}]},
            "the permissions of another user, admin",
        ),
        (
            {"topic_permissions": [{"user": "api", "exchange": "events", "write": ".*", "read": ".*"}]},
            "the permissions of another user, api",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(write, document: Any, what: str) -> None:
    with pytest.raises(OpsError, match=f"services/shop/rabbitmq.json, of shop: .*{what}") as caught:
        write(document)
    assert caught.value.code == USAGE


def test_a_missing_file_is_refused(env) -> None:
    with pytest.raises(OpsError, match="names services/shop/rabbitmq.json, which does not exist"):
        broker.declared(env.project_dir, Owned(users=(READER,)))


def test_two_services_that_declare_one_queue_differently_are_refused(tmp_path: Path) -> None:
    users = tuple(User(name, "X", (f"{name}.json",), (name,)) for name in ("one", "two"))
    for user, durable in zip(users, (True, False), strict=True):
        (tmp_path / user.definitions[0]).write_text(json.dumps({"queues": [{"name": "orders", "durable": durable}]}))
    with pytest.raises(OpsError, match="one.json and two.json declare the queue orders differently"):
        broker.declared(tmp_path, Owned(users=users))
    (tmp_path / "two.json").write_text((tmp_path / "one.json").read_text())
    broker.declared(tmp_path, Owned(users=users))


WANTED = {
    "queues": [{"name": "shop.orders"}],
    "exchanges": [{"name": "shop", "type": "topic"}],
    "bindings": [{"source": "shop", "destination": "shop.orders", "routing_key": "#"}],
    "policies": [{"name": "shop", "pattern": "^shop", "definition": {"max-length": 5}}],
}


@pytest.fixture
def compare(write):
    """What a broker lacks that has all of WANTED, but for some changes."""
    wanted = write(WANTED)

    def run(**changes: Any) -> list[str]:
        users = [{"name": "shop", "password_hash": definitions.rabbitmq_hash(PASSWORD, b"salt")}]
        present = {"users": users, **wanted, **changes}
        return list(broker.compare(READER, wanted, present, PASSWORD))

    return run


def test_a_broker_that_lacks_nothing(compare) -> None:
    assert compare() == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"users": []}, "RabbitMQ has no user shop"),
        ({"users": [{"name": "shop", "password_hash": "xx"}]},
         "RabbitMQ does not accept the password in SHOP_RABBITMQ_PASSWORD"),
        ({"queues": []}, "RabbitMQ has no queue shop.orders"),
        ({"exchanges": []}, "RabbitMQ has no exchange shop"),
        ({"bindings": []}, "RabbitMQ has no binding shop -> shop.orders"),
        ({"policies": []}, "RabbitMQ has no policy shop"),
        ({"policies": [{"vhost": "/", "name": "shop", "pattern": "^x", "definition": {}}]}, "policy shop differs"),
        ({"permissions": []}, "RabbitMQ has other permissions for shop"),
    ],
)  # fmt: skip
def test_what_a_broker_lacks(compare, changes: dict[str, Any], cause: str) -> None:
    assert compare(**changes) == [cause]


def test_a_queue_that_cannot_be_changed_is_refused(compare) -> None:
    classic = {"vhost": "/", "name": "shop.orders", "durable": True, "auto_delete": False,
               "arguments": {"x-queue-type": "classic"}}  # fmt: skip
    with pytest.raises(OpsError, match="queue shop.orders has another arguments.x-queue-type") as caught:
        compare(queues=[classic])
    assert caught.value.code == REFUSED


def test_a_hash_that_fits_is_kept(env) -> None:
    (env.secrets_dir / READER.secret).write_text(PASSWORD)
    known = definitions.rabbitmq_hash(PASSWORD, b"salt")
    present = {"users": [{"name": "shop", "password_hash": known}]}
    (user,) = broker.document(env, {READER: {kind: [] for kind in broker.KINDS}}, present)["users"]
    assert user["password_hash"] == known


# ── both ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_gives_no_answer_is_looked_at_later(env, monkeypatch) -> None:
    def away(*_args):
        raise OpsError("PostgreSQL is not running in dev.")

    monkeypatch.setattr(postgres, "primary", away)
    owned = Owned(roles=(SHOP, BLOG))
    assert provision.look(env, owned, []) == (
        Need("PostgreSQL", "shop", ("PostgreSQL does not answer yet",), later=True),
        Need("PostgreSQL", "blog", ("PostgreSQL does not answer yet",), later=True),
    )


def test_a_refusal_is_not_taken_for_silence(env, monkeypatch) -> None:
    monkeypatch.setattr(postgres, "primary", lambda *_args: None)

    def refuse(*_args):
        raise OpsError("the schema belongs to somebody else", code=REFUSED)

    monkeypatch.setattr(databases, "missing", refuse)
    with pytest.raises(OpsError, match="belongs to somebody else"):
        provision.look(env, Owned(roles=(SHOP,)), [])
    assert FAILED != REFUSED


def test_a_part_that_is_not_there_is_asked_of_nobody(env) -> None:
    entry = {"labels": {"ops.schema": "shop"}, "secrets": [{"source": "SHOP_DB_PASSWORD"}]}
    stack = Stack("", {"shop": Service("shop", "")}, {"services": {"shop": entry}})
    with pytest.raises(OpsError, match="no file of COMPOSE_FILE declares PostgreSQL") as caught:
        provision.declared(env, stack)
    assert caught.value.code == USAGE


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

KEEPER = RedisUser("shop", "SHOP_REDIS_PASSWORD", ("shop",))


def test_every_node_and_sentinel_must_know_a_user() -> None:
    known = {"shop": redis.digest(PASSWORD), "blog": "0" * 64}
    assert cache.compare(KEEPER, PASSWORD, {"redis-primary": known, "redis-sentinel-1": known}) == ()
    assert cache.compare(KEEPER, PASSWORD, {"redis-primary": known, "redis-replica": {"blog": "0" * 64}}) == (
        "redis-replica has no user shop",
    )
    assert cache.compare(KEEPER, "another", {"redis-primary": known}) == (
        "redis-primary does not accept the password in SHOP_REDIS_PASSWORD",
    )


def test_a_user_without_a_password_is_refused(env) -> None:
    with pytest.raises(OpsError, match="SHOP_REDIS_PASSWORD is missing or empty") as caught:
        cache.provide(env, Owned(redis_users=(KEEPER,)), [])
    assert (caught.value.code, caught.value.remedy) == (REFUSED, f"invoke secret-init --env {env.name}")


def test_a_redis_that_does_not_run_is_asked_later(env) -> None:
    (need,) = provision.look(env, Owned(redis_users=(KEEPER,)), [])
    assert (need.part, need.service, need.later) == ("Redis", "shop", True)
