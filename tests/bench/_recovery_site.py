"""A pair of PostgreSQL servers and the containers of the part `backup` around them, without the rest of a stack.

What is measured and damaged here runs in the images and with the settings of docker-compose.backup.yml; the servers
are the official ones, with the settings that matter to a backup.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.images import build
from tests.template import ROOT

POSTGRES, REDIS = "postgres:18.6", "redis:8.2.9"
PROJECT = ROOT / "<<cookiecutter.project>>"
IMAGE = "recovery-bench/backup"
PGDATA = "/var/lib/postgresql/18/docker"
SETTINGS = (
    "shared_buffers=256MB", "max_wal_size=2GB", "wal_compression=lz4", "summarize_wal=on", "wal_keep_size=128MB",
    "max_wal_senders=8", "max_replication_slots=8", "hot_standby_feedback=on", "wal_receiver_timeout=15s",
    "wal_sender_timeout=15s", "wal_retrieve_retry_interval=1s", "idle_in_transaction_session_timeout=60s",
    "checkpoint_timeout=15min",
)  # fmt: skip


class Failed(Exception):
    """A container ended with another exit code than 0. code, said: what it ended with and said last."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"exit code {code}: {said[-3000:]}")
        self.code, self.said = code, said


def docker(*arguments: str, input: str | None = None, timeout: float = 1200) -> str:
    """Standard output. Raises Failed."""
    done = subprocess.run(["docker", *arguments], input=input, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise Failed(done.returncode, f"docker {' '.join(arguments)[:200]}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait(met: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something holds; what cannot be asked yet does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if met():
                return
        except Failed:
            pass
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")


@dataclass
class Site:
    """Everything has a name that begins with `name`, and is gone with it."""

    name: str
    folder: Path
    targets: str = "/backups"
    settings: dict[str, str] = field(default_factory=dict)
    primary: str = "a"
    # Volumes that a container gets empty and in memory, as on another machine.
    fresh: tuple[str, ...] = ()
    # The weight of all but the receiver; 0: that of the servers.
    shares: int = 64

    # ── servers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def up(self, node: str, *, image: str = POSTGRES) -> None:
        """Start an empty primary."""
        self._node(node, image, "postgres")
        wait(lambda: self.sql("select 1", node=node) == "1", 60, f"{node} answers")
        docker(
            "exec",
            f"{self.name}-{node}",
            "bash",
            "-c",
            f"echo 'host all all all trust\nhost replication all all trust' >> {PGDATA}/pg_hba.conf",
        )
        self.sql("select pg_reload_conf()", node=node)

    def follow(self, node: str, leader: str) -> None:
        """Start a standby."""
        source = f"host={self.name}-{leader} user=postgres"
        copy = f"pg_basebackup -d '{source}' -D {PGDATA} -R -c fast -C -S {node} && chmod 700 {PGDATA}"
        become = f"[ -e {PGDATA}/PG_VERSION ] || ({copy}) && exec postgres {self._options()}"
        self._node(node, POSTGRES, "bash", "-c", become, entrypoint=True)
        wait(lambda: self.sql("select pg_is_in_recovery()", node=node) == "t", 180, f"{node} follows")

    def _options(self) -> str:
        return " ".join(f"-c {each}" for each in SETTINGS)

    def _node(self, node: str, image: str, *command: str, entrypoint: bool = False) -> None:
        name = f"{self.name}-{node}"
        words = [word for each in SETTINGS for word in ("-c", each)] if command == ("postgres",) else []
        rest = ["--entrypoint", command[0], image, *command[1:]] if entrypoint else [image, *command, *words]
        docker("run", "--detach", "--name", name, "--network", self.name, "--user", "999:999",
               "--env", "POSTGRES_HOST_AUTH_METHOD=trust", "--shm-size", "256m",
               "--volume", f"{name}:/var/lib/postgresql", *rest)  # fmt: skip

    def sql(self, statement: str, *, node: str = "", database: str = "postgres") -> str:
        name = f"{self.name}-{node or self.primary}"
        ask = ("psql", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atqc", statement)
        return docker("exec", name, *ask).strip()

    def destroy(self, node: str) -> None:
        """SIGKILL, and its volume is gone."""
        subprocess.run(["docker", "rm", "--force", "--volumes", f"{self.name}-{node}"], capture_output=True)
        subprocess.run(["docker", "volume", "rm", f"{self.name}-{node}"], capture_output=True)

    # ── the part backup ───────────────────────────────────────────────────────────────────────────────────────────────

    def options(self, name: str, **settings: str) -> list[str]:
        """Options of `docker run` for a container of the part, as docker-compose.backup.yml has them."""
        environment = {
            "ENVIRONMENT": "dev", "PROJECT": self.name, "BACKUP_TARGETS": self.targets, "BACKUP_S3_REGION": "",
            "BACKUP_WAL_SECONDS": "30", "BACKUP_FULL_DAYS": "7", "BACKUP_KEEP_DAILY": "7", "BACKUP_KEEP_WEEKLY": "4",
            "BACKUP_KEEP_MONTHLY": "3", "BACKUP_SECRETS": "", "BACKUP_UPLOAD_KIB": "0", "DATABASE_NAME": "postgres",
            "DATABASE_HOSTS": f"{self.name}-a,{self.name}-b", "REDIS_HOST": "", "REDIS_SENTINELS": "",
            "RABBITMQ_HOSTS": "", "RABBITMQ_USER": "", **self.settings, **settings,
        }  # fmt: skip
        volumes = {
            "backups": "/backups", "wal": "/wal", "cache": "/cache", "scratch": "/scratch",
            "uploads": "/volumes/web_uploads:ro",
        }  # fmt: skip
        return [
            *("--name", f"{self.name}-{name}", "--network", self.name, "--read-only", "--cap-drop=ALL"),
            *(
                "--security-opt=no-new-privileges",
                "--user=999:999",
                "--tmpfs=/tmp:mode=1777,size=64m",
                "--shm-size=128m",
            ),
            *("--memory=1g", "--cpus=1", "--init", f"--cpu-shares={0 if name == 'receiver' else self.shares}"),
            *(f"--env={key}={value}" for key, value in environment.items()),
            *(f"--volume={self.name}-{each}:{path}" for each, path in volumes.items() if each not in self.fresh),
            *(f"--tmpfs={volumes[each]}:uid=999,gid=999,mode=0700" for each in self.fresh),
            *(
                f"--volume={self.folder / 'secrets'}:/run/secrets:ro",
                f"--volume={self.folder / 'backup'}:/etc/backup:ro",
            ),
        ]

    def job(self, *command: str, name: str = "job", **settings: str) -> Any:
        """Run a command of the part to its end; what it says with --json. Raises Failed."""
        words = docker("run", "--rm", *self.options(name, **settings), IMAGE, *command, "--json")
        return json.loads(words.strip().splitlines()[-1])

    def start(self, *command: str, name: str, **settings: str) -> str:
        """Start a command of the part; its container."""
        docker("run", "--detach", *self.options(name, **settings), IMAGE, *command)
        return f"{self.name}-{name}"

    def shell(self, script: str, name: str = "shell", **settings: str) -> str:
        """Run a script in the part's image, with all that its containers have."""
        return docker(
            "run",
            "--rm",
            *self.options(name, **settings),
            "--entrypoint",
            "bash",
            IMAGE,
            "-euo",
            "pipefail",
            "-c",
            script,
        )

    def stop(self, name: str, seconds: int = 30) -> None:
        subprocess.run(["docker", "stop", "--time", str(seconds), f"{self.name}-{name}"], capture_output=True)
        subprocess.run(["docker", "rm", "--force", f"{self.name}-{name}"], capture_output=True)


@contextmanager
def site(name: str, **fields: Any) -> Iterator[Site]:
    """A network, volumes and secrets; nothing runs yet."""
    build.provide([POSTGRES, REDIS], say=lambda _: None)
    compose = yaml.safe_load((PROJECT / "docker-compose.backup.yml").read_text(encoding="utf-8"))
    folders = compose["x-backup"]["build"]["additional_contexts"]
    contexts = [word for key, folder in folders.items() for word in ("--build-context", f"{key}={PROJECT / folder}")]
    bundle = build.ca_bundle()
    secret = ["--secret", f"id=ca_bundle,src={bundle}"] if bundle else []
    docker("build", "--quiet", "--tag", IMAGE, "--build-arg", f"POSTGRES_IMAGE={POSTGRES}", "--build-arg",
           f"REDIS_IMAGE={REDIS}", *contexts, *secret, str(PROJECT / "infrastructure/backup"))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        found = Site(name, Path(folder), **fields)
        _clean(name)
        docker("network", "create", name)
        try:
            for each in ("secrets", "backup", "configuration"):
                (Path(folder) / each).mkdir()
            values = {"BACKUP_KEY": secrets.token_hex(20), "BACKUP_DB_PASSWORD": "unused", "REDIS_PASSWORD": "redis",
                      "BACKUP_S3_KEY_ID": "", "BACKUP_S3_SECRET": "", "BACKUP_SSH_KEY": ""}  # fmt: skip
            for key, value in values.items():
                (Path(folder) / "secrets" / key).write_text(value, encoding="utf-8")
            for path in Path(folder).rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            Path(folder).chmod(0o755)
            made = " ".join(f"/v/{each}" for each in ("backups", "wal", "cache", "scratch", "uploads"))
            mounts = [f"--volume={name}-{each.rpartition('/')[2]}:{each}" for each in made.split()]
            docker("run", "--rm", "--user=0", *mounts, "--entrypoint", "chown", IMAGE, "999:999", *made.split())
            yield found
        finally:
            _clean(name)


def _clean(name: str) -> None:
    for kind, remove in (("ps -a", "rm -fv"), ("volume ls", "volume rm"), ("network ls", "network rm")):
        form = "{{.Names}}" if kind == "ps -a" else "{{.Name}}"
        listed = subprocess.run(["docker", *kind.split(), "--format", form], capture_output=True, text=True).stdout
        ours = [each for each in listed.split() if each == name or each.startswith(f"{name}-")]
        if ours:
            subprocess.run(["docker", *remove.split(), *ours], capture_output=True)
