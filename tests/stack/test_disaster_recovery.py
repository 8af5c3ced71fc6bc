"""docs/disaster-recovery.md, followed by somebody whose machine is gone: every command, in the order of the document.

In dev instead of prod, which needs neither a domain nor a mail server; and the disk with the target survived. It takes
minutes, so it runs in `nox -s faults` only; what it is made of is tested in the ladder (test_recovery).
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time

import pytest

from tests import documents

from .data import container, psql, redis
from .project import Project, docker, eventually

pytestmark = [pytest.mark.story, pytest.mark.fault]

FILES = "docker-compose.scheduler.yml:docker-compose.backup.yml"
# What is typed when a command waits for a line.
_key = ""
_written: dict[str, str] = {}


def uploads(project: Project, script: str) -> str:
    return docker("exec", container(project, "web"), "sh", "-c", f"cd /app/uploads && {script}")


def content(project: Project) -> dict[str, str]:
    """What there is, as far as it must come back."""
    return {
        "rows": psql(project, "SELECT count(*), sum(hashtext(words)) FROM kept"),
        "key": redis(project, "GET", "kept"),
        "files": uploads(project, "find . -type f -exec sha256sum {} + | sort -k2; stat -c '%u %a' ."),
    }


def newest(project: Project) -> str:
    """The id of the newest backup."""
    (target,) = json.loads(project.invoke("backup", "--list", "--json").stdout)["targets"]
    return max(each["id"] for each in target["entries"])


def test_a_stack_with_backups(project: Project) -> None:
    global _key
    files = project.settings()["COMPOSE_FILE"].replace("docker-compose.services", f"{FILES}:docker-compose.services")
    project.set(
        COMPOSE_FILE=f"{files}:docker-compose.backup-volumes.yml", BACKUP_WAL_SECONDS="5", BACKUP_SECRETS="true"
    )
    project.invoke("deploy", "--yes")
    psql(project, "CREATE TABLE kept AS SELECT g AS id, md5(g::text) AS words FROM generate_series(1, 10000) g")
    redis(project, "SET", "kept", "here")
    uploads(project, "mkdir -p a && echo one > a/one && ln -s one a/link")
    project.invoke("backup")
    _written["entry"] = newest(project)
    # After the backup: these are in the log only.
    psql(project, "INSERT INTO kept SELECT g, md5(g::text) FROM generate_series(10001, 10100) g")
    _written.update(content(project))
    _key = (project.folder / "config/dev/secrets/BACKUP_KEY").read_text()
    time.sleep(15)


def test_the_machine_is_lost(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    project.remove()
    assert project.volumes() == set() and project.containers() == {}
    survived = tmp_path_factory.mktemp("disk") / "repository"
    subprocess.run(["cp", "-a", project.folder / "backups/dev/repository", survived], check=True)
    shutil.rmtree(project.folder / "backups")
    shutil.rmtree(project.folder / ".state", ignore_errors=True)
    for each in project.folder.glob("config/*/secrets"):
        shutil.rmtree(each)
    # "Copy it to backups/prod/repository, with its owner."
    (project.folder / "backups/dev").mkdir(parents=True)
    subprocess.run(["cp", "-a", survived, project.folder / "backups/dev/repository"], check=True)


def test_the_document_brings_it_back(project: Project) -> None:
    began = time.monotonic()
    for command in documents.commands(project.folder / "docs/disaster-recovery.md"):
        if command == "export STACK_ENV=prod":
            project.environ["STACK_ENV"] = "dev"
        elif command.startswith("invoke "):
            words = shlex.split(command)[1:]
            # A person answers the question.
            project.invoke(*words, *(["--yes"] if words[0] == "restore" and "--configuration" not in words else []))
        else:
            environ = {"PATH": "/usr/bin:/bin", **project.environ}
            subprocess.run(["bash", "-ec", command], cwd=project.folder, input=_key, env=environ, text=True, check=True)
        print(f"{time.monotonic() - began:6.0f} s  {command}")
    assert content(project) == {name: _written[name] for name in ("rows", "key", "files")}
    eventually(lambda: project.health(code=None)["healthy"], 60, "health")


def test_the_new_machine_protects_itself(project: Project) -> None:
    assert newest(project) > _written["entry"]
    psql(project, "INSERT INTO kept VALUES (0, 'new')")
    time.sleep(15)
    project.invoke("restore", "latest", "--to", "newest", "--only", "postgres", "--yes")
    assert psql(project, "SELECT count(*) FROM kept") == "10101"
