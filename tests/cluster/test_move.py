"""docs/kubernetes.md, "From one host to the cluster", followed line by line, and the way back: the data is the same,
byte for byte."""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.lab import run, wait_for
from tests.cluster.site import Site
from tests.images import build
from tests.stack import targets
from tests.stack.project import Project

pytestmark = [pytest.mark.story, pytest.mark.alone]

CHAPTER = "## From one host to the cluster\n"
BLOCK = re.compile(r"^```sh\n# (on the host|in the new checkout)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOST, CHECKOUT = "on the host", "in the new checkout"
PORT = 7070
# Backups and what is in them; PostgreSQL is a pair and Redis is one, as on a small host.
FILES = (
    *("docker-compose.yml", "docker-compose.postgres.yml", "docker-compose.redis.yml", "docker-compose.rabbitmq.yml"),
    *("docker-compose.scheduler.yml", "docker-compose.backup.yml", "docker-compose.services.yml"),
    "docker-compose.backup-volumes.yml",
)
TABLE = "CREATE TABLE kept AS SELECT g AS id, md5(g::text) AS words FROM generate_series(1, 20000) g"


@dataclass
class Move:
    """The two checkouts. content: what the host held when the last backup was taken; done: how many commands of the
    chapter were typed."""

    host: Project
    site: Site
    content: dict[str, str] = field(default_factory=dict)
    done: int = 0

    @property
    def checkouts(self) -> dict[str, Project]:
        """Where commands are typed, by what the document says."""
        return {HOST: self.host, CHECKOUT: self.site.project}

    def follow(self, last: str) -> float:
        """Type the next commands of the chapter, up to one that begins with these words; how many seconds that took."""
        began = time.monotonic()
        for where, command in commands(self.host.folder / "docs/kubernetes.md")[self.done :]:
            self.done += 1
            self._type(self.checkouts[where], command)
            print(f"{time.monotonic() - began:6.0f} s  {where}: {command}")
            if command.startswith(last):
                return time.monotonic() - began
        raise AssertionError(f"{last!r} is not in the rest of the chapter")

    def _type(self, project: Project, command: str) -> None:
        if command.startswith("invoke "):
            words = shlex.split(command)[1:]
            # A person answers the question, and looks at what is not well: a site that is closed is not.
            answer, code = (["--yes"] if words[0] == "restore" else []), (None if words[0] == "health" else 0)
            project.invoke(*words, *answer, code=code, STACK_ENV="prod")
        else:
            environ = {**project.environ, "KUBE_CONTEXT": "test", "NAMESPACE": self.site.namespace}
            subprocess.run(["bash", "-ec", command], cwd=project.folder, env=environ, check=True)


def commands(document: Path) -> list[tuple[str, str]]:
    """The commands of the chapter, and where each is typed."""
    chapter = document.read_text(encoding="utf-8").partition(CHAPTER)[2].partition("\n## ")[0]
    return [(where, line) for where, lines in BLOCK.findall(chapter) for line in lines.splitlines() if line.strip()]


def content(project: Project) -> dict[str, str]:
    """What there is, as far as it must be moved: asked by the same commands on a host and in a cluster."""

    def said(*words: str) -> str:
        return project.invoke(*words, STACK_ENV="prod").stdout.strip()

    files = "cd /app/uploads && find . -type f -exec sha256sum {} + | sort -k2"
    return {
        "rows": said("psql", "--", "--tuples-only", "--command", "SELECT count(*), sum(hashtext(words)) FROM kept"),
        "people": said("psql", "--", "--tuples-only", "--command", "SELECT count(*) FROM auth.users"),
        "key": said("redis-cli", "--", "GET", "kept"),
        "files": said("run", "web", "--no-entrypoint", "--", "sh", "-c", files),
    }


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> Iterator[targets.Place]:
    """An S3-compatible server on this machine, at an address that containers and pods reach."""
    if reason := build.provide([targets.S3], say=lambda _: None).unavailable.get(targets.S3):
        pytest.skip(f"{targets.S3}: {reason}")
    for node in cluster.nodes():
        # The way back to the pods; it vanishes with the cable.
        run("ip", "route", "replace", cluster.lab.pods(node), "via", cluster.lab.server)
    key, secret = f"key{secrets.token_hex(6)}", secrets.token_hex(20)
    name, address = f"move-s3-{cluster.lab.number}", f"{cluster.lab.host}:{PORT}"
    logins = (f"--env=ROOT_ACCESS_KEY_ID={key}", f"--env=ROOT_SECRET_ACCESS_KEY={secret}")
    options = ("--network=host", "--volume=/data", "--volume=/attributes", f"--env=VGW_PORT={address}", *logins)
    run("docker", "run", "--detach", "--name", name, *options, targets.S3, "posix", "--sidecar=/attributes", "/data")
    try:
        assert wait_for(lambda: subprocess.run(["curl", "-so/dev/null", f"http://{address}"]).returncode == 0, 30)
        logged = {"BACKUP_S3_KEY_ID": key, "BACKUP_S3_SECRET": secret}
        yield targets.Place(f"s3:http://{address}/backup", name, "/data/backup", logged)
    finally:
        run("docker", "rm", "--force", "--volumes", name, check=False)


@pytest.fixture(scope="module")
def move(cluster: Cluster, target: targets.Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    """A project on this machine, and a second checkout of it for the cluster with the secrets of the first."""
    site = Site.prepare(tmp_path_factory.mktemp("host"), cluster)
    host = site.project
    (host.folder / "config/prod/backup").mkdir(exist_ok=True)
    for name, value in target.secrets.items():
        path = host.folder / "config/prod/secrets" / name
        path.unlink()
        path.write_text(value)
        path.chmod(0o444)
    host.set(
        "prod",
        **{
            "COMPOSE_FILE": ":".join(FILES),
            "BACKUP_TARGETS": f'"{target.address} /backups"',
            "BACKUP_WAL_SECONDS": "5",
        },
        **{"REDIS_SENTINELS": "", "RABBITMQ_HOSTS": "rabbitmq", "BIND_ADDRESS": "127.0.0.1"},
    )
    checkout = Path(shutil.copytree(host.folder, tmp_path_factory.mktemp("new") / host.folder.name, symlinks=True))
    there = replace(host, folder=checkout)
    host.environ = {}
    host.set("prod", ENGINE="docker", KUBE_CONTEXT="")
    exported = [*FILES[:6], "infrastructure/kubernetes/backup.yml", *FILES[6:]]
    there.set("prod", COMPOSE_FILE=":".join(exported), BIND_ADDRESS="0.0.0.0")
    moved = Move(host, replace(site, project=there))
    try:
        moved.site.export()
        moved.site.push()
        yield moved
    finally:
        moved.site.remove()
        host.remove()


def test_a_host_with_a_target_that_both_reach(move: Move) -> None:
    move.host.invoke("deploy", "--env", "prod", "--yes")
    with move.host.client("prod") as client:
        move.host.sign_in(client, "person@example.com")
    move.host.invoke("psql", "--env", "prod", "--", "--command", TABLE)
    move.host.invoke("redis-cli", "--env", "prod", "--", "SET", "kept", "here")
    made = "cd /app/uploads && mkdir -p a && head -c 300000 /dev/urandom > a/one && echo two > two"
    move.host.invoke("run", "web", "--env", "prod", "--no-entrypoint", "--", "sh", "-c", made)
    move.follow("invoke backup --verify")


def test_an_empty_stack_in_the_cluster(move: Move) -> None:
    took = move.follow("invoke health")
    print(f"from nothing to an empty stack: {took:.0f} s")


def test_the_data_is_the_same_after_the_move(move: Move) -> None:
    move.content = content(move.host)
    took = move.follow("invoke restore")
    assert content(move.site.project) == move.content
    move.site.wait_ready(60)
    print(f"the site was away for {took:.0f} s")


def test_who_had_an_account_has_it_in_the_cluster(move: Move) -> None:
    with move.site.client(move.site.edges()[0]) as client:
        known = {"email": "person@example.com", "password": "correct horse battery staple"}
        answer = client.post("/api/v1/auth/login", json=known)
        assert answer.status_code == 200, answer.text


def test_the_way_back(move: Move) -> None:
    project = move.site.project
    move.follow("invoke stop")
    project.invoke("psql", "--env", "prod", "--", "--command", "INSERT INTO kept VALUES (0, 'new')")
    project.invoke("redis-cli", "--env", "prod", "--", "SET", "kept", "there")
    made = "cd /app/uploads && echo three > three && rm two"
    project.invoke("run", "web", "--env", "prod", "--no-entrypoint", "--", "sh", "-c", made)
    written = content(project)
    took = move.follow("invoke maintenance off")
    assert content(move.host) == written
    print(f"back on the host after {took:.0f} s")
