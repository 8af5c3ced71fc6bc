"""What a service owns in the data tier: made at a deploy without a restart, watched, backed up and restored.

The tests share one stack, in this order.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from .data import container
from .project import Project, docker, eventually, refused

pytestmark = [pytest.mark.story, pytest.mark.fault]

# An image that has no client of any of this: what it owns does not depend on what it is.
ENTRY = """\
  stall:
    image: ${NGINX_IMAGE}
    entrypoint: [sleep, infinity]
    init: true
    restart: unless-stopped
    labels:
      ops.database: stall
      ops.rabbitmq: stall
      ops.rabbitmq.definitions: services/stall.json
      ops.redis: stall
      ops.backup: stall_files
      ops.ready: healthcheck
      ops.rollout: rolling
    healthcheck: {test: [CMD, "true"], interval: 2s}
    secrets: [STALL_DB_PASSWORD, STALL_RABBITMQ_PASSWORD, STALL_REDIS_PASSWORD]
    volumes: ["stall_files:/data", "stall_cache:/cache"]
    networks: [database]
"""
SECRETS = """\
  STALL_DB_PASSWORD: {file: "./config/${ENVIRONMENT}/secrets/STALL_DB_PASSWORD"}
  STALL_RABBITMQ_PASSWORD: {file: "./config/${ENVIRONMENT}/secrets/STALL_RABBITMQ_PASSWORD"}
  STALL_REDIS_PASSWORD: {file: "./config/${ENVIRONMENT}/secrets/STALL_REDIS_PASSWORD"}
"""
DEFINITIONS = {
    "permissions": [{"configure": "^$", "write": "^amq\\.default$", "read": "^stall\\."}],
    "queues": [{"name": "stall.orders"}],
}


def add(project: Project) -> None:
    """Write the entry of stall, as a team does."""
    file = project.folder / "docker-compose.services.yml"
    text = file.read_text()
    for place, more in (
        ("services:\n", ENTRY),
        ("volumes:\n", "  stall_files:\n  stall_cache:\n"),
        ("secrets:\n", SECRETS),
    ):
        before, found, after = text.partition(f"\n{place}")
        assert found
        text = f"{before}{found}{more}{after}"
    file.write_text(text)
    (project.folder / "services/stall.json").write_text(json.dumps(DEFINITIONS))


def psql(project: Project, text: str, *options: str, user: str = "admin", database: str = "postgres") -> str:
    login = (f"--username={user}", f"--dbname={database}", "-At", "-v", "ON_ERROR_STOP=1")
    primary = container(project, "postgres-primary")
    done = subprocess.run(
        ["docker", "exec", "-i", *options, primary, "psql", *login], input=text, capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def as_stall(project: Project, text: str, database: str = "stall") -> str:
    """What PostgreSQL answers the role of stall over the network, from another node."""
    password = (project.folder / "config/dev/secrets/STALL_DB_PASSWORD").read_text()
    other = container(project, "postgres-replica")
    argv = ["docker", "exec", "-i", "-e", f"PGPASSWORD={password}", other, "psql", "-h", "postgres-primary", "-At"]
    done = subprocess.run([*argv, "-U", "stall", database], input=text, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def in_redis(project: Project, *command: str, node: str = "redis-primary") -> str:
    """What Redis answers the user of stall over the network, from the other node."""
    password = (project.folder / "config/dev/secrets/STALL_REDIS_PASSWORD").read_text()
    other = container(project, "redis-replica" if node == "redis-primary" else "redis-primary")
    login = ("redis-cli", "-h", node, "--no-auth-warning", "--user", "stall")
    return docker("exec", "-e", f"REDISCLI_AUTH={password}", other, *login, *command).strip()


def in_stall(project: Project, script: str) -> str:
    return docker("exec", container(project, "stall"), "sh", "-c", script)


def archive(project: Project) -> Path:
    return max((project.folder / "backups/dev").glob("*.tar"))


def test_a_claim_that_cannot_be_meant_is_refused_before_anything_changes(dev_stack: Project) -> None:
    add(dev_stack)
    before = dev_stack.containers()
    entry = dev_stack.folder / "docker-compose.services.yml"
    good = entry.read_text()
    for wrong, words in (
        (good.replace("ops.database: stall", "ops.database: postgres"), "the stack itself uses that name"),
        (good.replace("ops.database: stall", "ops.schema: auth"), "AUTH_DB_PASSWORD"),
        (good.replace("ops.backup: stall_files", "ops.backup: stall_data"), "mounts no volume stall_data"),
        (good.replace("services/stall.json", "services/none.json"), "services/none.json, which does not exist"),
    ):
        entry.write_text(wrong)
        refused(dev_stack.invoke("deploy", code=2), words)
    entry.write_text(good)
    (dev_stack.folder / "services/stall.json").write_text(
        '{"permissions": [{"user": "admin", "configure": "", "write": "", "read": ""}]}'
    )
    refused(dev_stack.invoke("deploy", code=2), "services/stall.json", "the permissions of another user, admin")
    (dev_stack.folder / "services/stall.json").write_text(json.dumps(DEFINITIONS))
    assert dev_stack.containers() == before


def test_a_deploy_makes_what_a_new_service_owns_and_restarts_nothing(dev_stack: Project) -> None:
    running = {name: identity for name, identity in dev_stack.containers().items() if "-migrate-" not in name}
    plan = json.loads(dev_stack.invoke("deploy", "--json").stdout)
    made = {cause for each in plan["operations"] if each["operation"] == "provision" for cause in each["causes"]}
    assert made == {"PostgreSQL has no role stall with a database", "RabbitMQ has no user stall"} | {
        f"{node} has no user stall" for node in ("redis-primary", "redis-replica")
    }
    dev_stack.invoke("deploy", "--yes")
    assert running.items() <= dev_stack.containers().items()
    assert as_stall(dev_stack, "CREATE TABLE orders AS SELECT 7 AS id; SELECT current_user") == "SELECT 1\nstall"
    assert "permission denied for database" in as_stall(dev_stack, "SELECT 1", database="appdb")
    assert in_redis(dev_stack, "set", "stall:a", "1") == "OK"
    assert in_redis(dev_stack, "get", "stall:a", node="redis-replica") == "1"
    assert "NOPERM" in in_redis(dev_stack, "get", "other:a")
    queues = docker("exec", container(dev_stack, "rabbitmq"), "rabbitmqctl", "-q", "list_queues", "name")
    assert "stall.orders" in queues.split()
    assert json.loads(dev_stack.invoke("deploy", "--json").stdout)["idle"] is True


def test_the_superuser_still_does_not_get_in_over_the_network(dev_stack: Project) -> None:
    password = (dev_stack.folder / "config/dev/secrets/POSTGRES_PASSWORD").read_text()
    other = container(dev_stack, "postgres-replica")
    argv = ["docker", "exec", "-e", f"PGPASSWORD={password}", other, "psql", "-h", "postgres-primary", "-U", "admin"]
    done = subprocess.run([*argv, "appdb", "-c", "SELECT 1"], capture_output=True, text=True)
    assert "no pg_hba.conf entry" in done.stderr


def test_passwords_of_a_service_are_rotated_like_any_other(dev_stack: Project) -> None:
    done = dev_stack.invoke("secret-rotate", "STALL_DB_PASSWORD,STALL_RABBITMQ_PASSWORD,STALL_REDIS_PASSWORD", "--yes")
    assert "rotated 3 secrets" in done.stdout
    assert as_stall(dev_stack, "SELECT id FROM orders") == "7"
    for node in ("redis-primary", "redis-replica"):
        assert in_redis(dev_stack, "get", "stall:a", node=node) == "1"


def test_a_user_of_redis_outlives_a_restart(dev_stack: Project) -> None:
    docker("restart", container(dev_stack, "redis-primary"))
    eventually(lambda: dev_stack.health(code=None)["healthy"], 60, "health")
    assert in_redis(dev_stack, "get", "stall:a") == "1"


def test_what_was_lost_is_reported_and_made_again(dev_stack: Project) -> None:
    docker("exec", container(dev_stack, "rabbitmq"), "rabbitmqctl", "-q", "delete_queue", "stall.orders")
    psql(dev_stack, "ALTER ROLE stall PASSWORD 'another'")
    docker("exec", container(dev_stack, "redis-replica"), "sh", "/etc/redis/users.sh", "remove", "stall")
    failing = [each for each in dev_stack.health(code=1)["checks"] if each["status"] == "fail"]
    assert {each["target"] for each in failing} == {"services"}
    details = " ".join(each["detail"] for each in failing)
    assert "no queue stall.orders" in details and "does not accept the password in STALL_DB_PASSWORD" in details
    assert "redis-replica has no user stall" in details
    dev_stack.invoke("deploy")
    assert dev_stack.health()["healthy"] is True
    assert as_stall(dev_stack, "SELECT id FROM orders") == "7"


def test_a_backup_holds_it_and_says_what_it_leaves_out(dev_stack: Project) -> None:
    in_stall(
        dev_stack, "mkdir -p /data/a && echo one > /data/a/file && ln /data/a/file /data/a/twin && echo x > /cache/x"
    )
    done = json.loads(dev_stack.invoke("backup", "--json").stdout)
    # Modules before may have left databases of their services, which are named too.
    mine = [each for each in done["left_out"] if "stall" in each]
    assert mine == ["volume stall_cache: no label ops.backup names it"]
    assert dev_stack.health()["healthy"] is True, "nobody has uploaded anything, and an empty volume keeps its owner"
    with tarfile.open(archive(dev_stack)) as tar:
        names = tar.getnames()
    assert {"databases/stall.dump", "volumes/stall_files.tar.gz", "volumes/web_uploads.tar.gz"} <= set(names)


def test_a_restore_brings_it_back_with_its_role(dev_stack: Project) -> None:
    psql(dev_stack, "DROP DATABASE stall WITH (FORCE)")
    psql(dev_stack, "DROP ROLE stall")
    in_stall(dev_stack, "rm -r /data/a && echo new > /data/new")
    done = dev_stack.invoke("restore", str(archive(dev_stack)), "--yes")
    assert "Not restored" not in done.stderr
    assert as_stall(dev_stack, "SELECT id FROM orders") == "7"
    assert in_stall(dev_stack, "find /data -type f | sort") == "/data/a/file\n/data/a/twin"
    assert dev_stack.health()["healthy"] is True
    # For whoever uses this stack next: what a service leaves behind is a person's to remove.
    psql(dev_stack, "DROP DATABASE stall WITH (FORCE)")
    psql(dev_stack, "DROP ROLE stall")
