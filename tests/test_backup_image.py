"""The tests with the marker `image` in ops/tests/recovery, in the image of backups, whose programs they need.

They get an S3 server and an SFTP server to save to. Needs an engine.
"""

from __future__ import annotations

import importlib
import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.images import build

# What pytest is made of, all of it Python: the image has none.
PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
S3, SFTP = "versity/versitygw:v1.8.0", "atmoz/sftp:debian"
# So much fits on each server, and into the folder SMALL_FOLDER.
SMALL = "size=32m,mode=1777"

Run = Callable[..., subprocess.CompletedProcess[str]]


def docker(*arguments: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """Run the docker client, whatever the exit code."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds)


def done(*arguments: str) -> str:
    """What the docker client says when it succeeds."""
    found = docker(*arguments)
    assert found.returncode == 0, f"docker {' '.join(arguments)}: {found.stdout}{found.stderr}"
    return found.stdout.strip()


@pytest.fixture(scope="module")
def image(engine: None, project: Path) -> Iterator[str]:
    """The image of backups."""
    values = dotenv_values(project / "config/dev/.env")
    images = {name: str(values[name]) for name in ("POSTGRES_IMAGE", "REDIS_IMAGE")}
    result = build.provide([*images.values(), S3, SFTP], say=lambda _: None)
    assert not result.unavailable, result.unavailable
    name = f"backup-image-test:{secrets.token_hex(4)}"
    contexts = [f"--build-context={folder}={project}/ops/{folder}" for folder in ("base", "recovery", "state")]
    arguments = [f"--build-arg={key}={value}" for key, value in images.items()]
    done("build", "--quiet", f"--tag={name}", *contexts, *arguments, str(project / "infrastructure/backup"))
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture(scope="module")
def servers(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options of `docker run` for a container that reaches the two servers; what opens them is in /keys."""
    keys = tmp_path_factory.mktemp("keys")
    keys.chmod(0o777)
    network = f"backup-image-test-{secrets.token_hex(4)}"
    s3_key = {"BACKUP_S3_KEY_ID": secrets.token_hex(8), "BACKUP_S3_SECRET": secrets.token_hex(16)}
    for name, value in s3_key.items():
        (keys / name).write_text(value, encoding="utf-8")
    make = ["-q", "-t", "ed25519", "-N", "", "-f", "/keys/BACKUP_SSH_KEY"]
    done("run", "--rm", f"--volume={keys}:/keys", "--entrypoint=ssh-keygen", image, *make)
    done("network", "create", "--internal", network)
    started = []
    try:
        at = ["run", "--detach", f"--network={network}"]
        access = [f"--env=ROOT_ACCESS_KEY={s3_key['BACKUP_S3_KEY_ID']}"]
        access += [f"--env=ROOT_SECRET_KEY={s3_key['BACKUP_S3_SECRET']}"]
        s3 = ["--network-alias=s3", f"--tmpfs=/data:{SMALL}", *access, S3, "--port=:7070", "posix", "/data"]
        started.append(done(*at, *s3))
        public = f"--volume={keys}/BACKUP_SSH_KEY.pub:/home/keeper/.ssh/keys/id.pub:ro"
        sftp = ["--network-alias=sftp", f"--tmpfs=/home/keeper/data:{SMALL}", public, SFTP, "keeper::1000:100:data"]
        started.append(done(*at, *sftp))
        host = until_said(started[1], "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        (keys / "known_hosts").write_text(f"sftp {host}\n", encoding="utf-8")
        yield [f"--network={network}", f"--volume={keys}:/keys:ro"]
    finally:
        for each in started:
            docker("rm", "--force", "--volumes", each)
        docker("network", "rm", network)


def until_said(container: str, *argv: str) -> str:
    """What a program of a container says, once it succeeds."""
    for _ in range(100):
        found = docker("exec", container, *argv)
        if found.returncode == 0:
            return found.stdout.strip()
    raise AssertionError(f"{argv}: {found.stderr}{docker('logs', container).stderr}")


@pytest.fixture
def run(image: str, servers: list[str]) -> Run:
    """Runs a program in the image, as the stack would."""

    def run(*arguments: str, options: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=999:999"]
        folders = ["--tmpfs=/tmp:mode=1777,size=512m", f"--tmpfs=/small:{SMALL}"]
        return docker("run", "--rm", *hardened, *folders, *servers, *(options or []), image, *arguments)

    return run


def test_what_needs_the_programs_of_the_image(run: Run, project: Path) -> None:
    files = [Path(importlib.import_module(name).__file__ or "") for name in PYTEST]
    packages = [each.parent if each.name == "__init__.py" else each for each in files]
    options = [
        *(f"--volume={folder}:/packages/{folder.name}:ro" for folder in packages),
        f"--volume={project}/ops:/project/ops:ro",
        f"--volume={project}/pyproject.toml:/project/pyproject.toml:ro",
        *("--workdir=/project", "--env=PYTHONPATH=/packages:/project", "--env=SMALL_FOLDER=/small"),
        "--entrypoint=python3",
    ]
    # Without ops/tests/conftest.py, which needs what the commands are made of.
    pytest_options = ["-m", "image", "-p", "no:cacheprovider", "--confcutdir=ops/tests/recovery", "-q", "-ra"]
    found = run("-m", "pytest", *pytest_options, "ops/tests/recovery", options=options)
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-5_000:]
    assert " passed" in found.stdout and "skipped" not in found.stdout, found.stdout[-2_000:]


HOLD = """
from pathlib import Path
from ops.recovery.repository import Repository
from ops.recovery.settings import Keep, Paths, Settings, Target
paths = Paths(wal=Path("/state/wal"), cache=Path("/state/cache"), secrets=Path("/state"))
settings = Settings("prod", "acme", (Target("/state/target"),), 30, 7, Keep(7, 4, 6), paths=paths)
repo = Repository(settings, settings.targets[0], "backups", lock_seconds=0)
"""


def test_the_lock_of_a_killed_container_is_removed_and_that_of_another_machine_is_not(run: Run, image: str) -> None:
    volume = f"backup-image-test-{secrets.token_hex(4)}"
    # the image's own folder of that user gives the volume its owner
    mounted = [f"--volume={volume}:/state", "--entrypoint=python3"]

    def script(text: str, *options: str) -> subprocess.CompletedProcess[str]:
        return run("-c", HOLD + text, options=[*mounted, *options])

    try:
        owner = ["--user=0:0", "--entrypoint=sh", f"--volume={volume}:/state"]
        done("run", "--rm", *owner, image, "-c", "echo key > /state/BACKUP_KEY && chown -R 999:999 /state")
        assert script("repo.ensure()").returncode == 0
        hold = "repo.save_output(['sh', '-c', 'touch /state/begun; sleep 600'], 'x', [])"
        held = f"backup-image-test-{secrets.token_hex(4)}"
        for forgotten in ("", "import shutil; shutil.rmtree('/state/cache/holders');"):
            begin = ["run", "--detach", f"--name={held}", "--user=999:999", "--tmpfs=/tmp:mode=1777", *mounted, image]
            done(*begin, "-c", HOLD + hold)
            until_said(held, "ls", "/state/begun")
            living = script("repo.prune()")
            assert "Locked" in living.stderr and "in use" in living.stderr, living.stderr
            done("kill", held)
            done("rm", held)
            dead = script(f"{forgotten}print(repo.prune()); __import__('os').unlink('/state/begun')")
            if forgotten:
                assert "Locked" in dead.stderr, dead.stderr
            else:
                assert dead.stdout.strip() == "True", dead.stderr
    finally:
        docker("rm", "--force", held)
        docker("volume", "rm", volume)


def test_the_image_says_which_commands_it_has(run: Run) -> None:
    found = run("--help")
    assert found.returncode == 0 and "receive" in found.stdout, found.stderr
    refused = run("receive", "--json")
    assert refused.returncode == 2 and json.loads(refused.stdout)["error"]["message"].startswith("BACKUP_TARGETS")
