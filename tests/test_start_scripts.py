"""Start scripts and images with secrets and checkouts as people have them. Needs an engine."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import compose, container
from tests.container import docker

# Everything that a shell, a configuration file or an editor could change; the file ends as Windows ends lines.
PASSWORD = r"""a\\b\n"c'd$e %s"""
Start = Callable[..., str]


@pytest.fixture
def start(engine: None, project: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a service of dev by itself, with PASSWORD in every secret; returns its container."""
    started: list[str] = []
    secrets = tmp_path / "secrets"
    secrets.mkdir()

    def start(name: str, *extra: str, failover: bool = False, network: str = "none") -> str:
        service = compose.resolve(project, "dev", everything=failover)["services"][name]
        if docker("image", "inspect", service["image"]).returncode != 0:
            pytest.skip(f"{service['image']} is not on this engine")
        for secret in service.get("secrets", []):
            (secrets / secret["source"]).write_text(f"{PASSWORD}\r\n", encoding="utf-8", newline="")
        entrypoint, *rest = service["entrypoint"]
        options = [*container.options(service, project, secrets, {}, network), *extra, f"--entrypoint={entrypoint}"]
        done = docker("run", "--detach", *options, service["image"], *rest, *(service.get("command") or []))
        assert done.returncode == 0, done.stderr
        started.append(done.stdout.strip())
        return started[-1]

    yield start
    for each in reversed(started):
        docker("rm", "--force", "--volumes", each)


def ask(name: str, *argv: str, seconds: float = 30) -> str:
    """What a command in a container says, once it succeeds."""
    end = time.monotonic() + seconds
    while True:
        done = docker("exec", name, *argv)
        if done.returncode == 0:
            return done.stdout.strip()
        logs = docker("logs", "--tail=20", name)
        assert time.monotonic() < end, f"{argv}: {done.stdout}{done.stderr}\n{logs.stdout}{logs.stderr}"
        time.sleep(0.2)


def test_redis(start: Start) -> None:
    node = start("redis-primary")
    ask(node, "sh", "/etc/redis/health.sh", "primary")
    logged_in = docker("exec", f"--env=REDISCLI_AUTH={PASSWORD}", node, "redis-cli", "--no-auth-warning", "ping")
    assert logged_in.stdout.strip() == "PONG"
    # what a replica logs in with
    assert ask(node, "sh", "/etc/redis/cli.sh", "config", "get", "masterauth").splitlines() == ["masterauth", PASSWORD]


def test_sentinel(start: Start) -> None:
    """It logs in to the node as the user that may change roles."""
    sentinels = "--env=REDIS_SENTINELS=127.0.0.1:26379"
    names = [f"--add-host={name}:127.0.0.1" for name in ("redis-primary", "redis-replica")]
    sentinel = start("redis-sentinel-1", *names, failover=True)
    node = start("redis-primary", sentinels, failover=True, network=f"container:{sentinel}")
    # not "master,disconnected"
    asking = "sh /etc/redis/cli.sh -p 26379 sentinel master stack | sed -n '/^flags$/{n;p}' | grep -x master"
    ask(sentinel, "sh", "-c", asking)
    ask(node, "sh", "/etc/redis/health.sh", "node")


def test_users_of_services_in_redis(start: Start) -> None:
    """Each has its own keys and channels, and they outlive a restart, on a node and on a sentinel."""
    sentinels = "--env=REDIS_SENTINELS=127.0.0.1:26379"
    names = [f"--add-host={name}:127.0.0.1" for name in ("redis-primary", "redis-replica")]
    sentinel = start("redis-sentinel-1", *names, failover=True)
    node = start("redis-primary", sentinels, failover=True, network=f"container:{sentinel}")
    ask(node, "sh", "/etc/redis/health.sh", "node")
    digests = {name: hashlib.sha256(f"{name}'s".encode()).hexdigest() for name in ("shop", "my-blog", "gone")}
    given = "\n".join(f"{name} {digest}" for name, digest in digests.items())
    for each in (node, sentinel):
        made = docker("exec", "-i", each, "sh", "/etc/redis/users.sh", "set", input=f"{given}\n")
        assert made.stdout.split() == ["OK"] * 3, made.stderr
        assert docker("exec", each, "sh", "/etc/redis/users.sh", "remove", "gone").stdout.strip() == "1"

    def said(user: str, *command: str, where: str = node) -> str:
        port = ("-p", "26379") if where == sentinel else ()
        argv = ("redis-cli", "--no-auth-warning", *port, "--user", user, *command)
        return docker("exec", f"--env=REDISCLI_AUTH={user}'s", where, *argv).stdout.strip()

    def check() -> None:
        kept = [f"{name} {digests[name]}" for name in ("my-blog", "shop")]
        for each in (node, sentinel):
            assert ask(each, "sh", "/etc/redis/users.sh", "list").splitlines() == kept
        assert "NOAUTH" in said("gone", "ping")
        assert said("shop", "get", "shop:a") == "1"
        assert said("shop", "eval", "return redis.call('get', KEYS[1])", "1", "shop:a") == "1"
        assert said("shop", "publish", "shop:news", "x") == "0"
        # INFO is what clients ask before they begin
        assert "redis_version" in said("shop", "info", "server")
        for command in (("get", "my-blog:a"), ("set", "b", "1"), ("publish", "news", "x"), ("keys", "*"), ("flushall",),
                        ("acl", "list"), ("config", "get", "*"), ("function", "flush"), ("script", "flush"),
                        ("eval", "return redis.call('get', 'my-blog:a')", "0")):  # fmt: skip
            assert "NOPERM" in said("shop", *command) or "No permissions" in said("shop", *command), command
        master = said("shop", "sentinel", "get-master-addr-by-name", "stack", where=sentinel)
        assert master.splitlines()[0] == "redis-primary"
        assert "NOPERM" in said("shop", "sentinel", "failover", "stack", where=sentinel)

    # No replica is there, so the guard lets it take writes after a while.
    ask(node, "sh", "-c", 'REDISCLI_AUTH="shop\'s" redis-cli --user shop set shop:a 1 | grep -qx OK')
    check()
    docker("restart", node)
    ask(node, "sh", "/etc/redis/health.sh", "node")
    check()
    docker("restart", sentinel)
    ask(sentinel, "sh", "/etc/redis/health.sh", "sentinel")
    for each in ("shop", "my-blog"):
        assert said(each, "ping", where=sentinel) == "PONG"


@pytest.mark.parametrize("role", ["admin", "metrics"])
def test_postgres(start: Start, role: str) -> None:
    """Its own roles. Those of the services are made by a deploy: tests/stack/test_owned.py."""
    node = start("postgres-primary")
    ask(node, "bash", "/etc/postgresql/health.sh", "server", seconds=60)
    psql = ("psql", "--host=127.0.0.1", f"--username={role}", "--dbname=appdb", "--tuples-only", "--command=SELECT 1")
    done = docker("exec", f"--env=PGPASSWORD={PASSWORD}", node, *psql)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_redis_exporter(start: Start) -> None:
    """It has the password for every node and sentinel by name, and for no other address."""
    here = "redis-exporter.monitoring"
    exporter = start("redis-exporter", f"--add-host={here}:127.0.0.1", failover=True)
    ask(exporter, "wget", "-q", "-O", "-", f"http://{here}:9121/health")
    passwords = json.loads(ask(exporter, "cat", "/run/redis-exporter/passwords.json"))
    nodes = {f"redis://redis-{name}:6379" for name in ("primary", "replica")}
    assert passwords == dict.fromkeys(nodes | {f"redis://redis-sentinel-{n}:26379" for n in (1, 2, 3)}, PASSWORD)


def test_a_service_reads_its_source_from_a_checkout_with_a_private_umask(
    engine: None, project: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(project / "services", tmp_path / "services")
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    python = compose.resolve(project, "prod")["services"]["web"]["build"]["args"]["PYTHON_IMAGE"]
    arguments = [f"--build-arg=PYTHON_IMAGE={python}", "--build-arg=SERVICE=web", "--target=source"]
    built = docker("build", "--quiet", *arguments, str(folder))
    assert built.returncode == 0, built.stderr
    image = built.stdout.strip()
    listing = docker("run", "--rm", "--network=none", "--user=10001", image, "find", "/app", "!", "-readable")
    docker("image", "rm", image)
    assert (listing.returncode, listing.stdout, listing.stderr) == (0, "", "")
