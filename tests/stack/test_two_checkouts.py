"""One environment, several checkouts and users: all see the same releases, and nobody changes what nobody changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .project import Project, docker

pytestmark = pytest.mark.story

# An ordinary user: nobody.
USER = 65534
SOCKET = Path("/var/run/docker.sock")


@pytest.fixture(scope="module")
def other(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone of the project in another folder: what git has, so without secrets and logs."""
    folder = tmp_path_factory.mktemp("clone") / "checkout"
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns(".state", ".git", "__pycache__"))
    for environment in ("dev", "staging", "prod"):
        shutil.rmtree(folder / "config" / environment / "secrets")
        (folder / "config" / environment / "secrets").mkdir()
    return Project(folder)


def standing(project: Project) -> set[tuple[str, ...]]:
    """Every container with its id and when it was started: equal means that none was touched."""
    line = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
    return {tuple(each.split()) for each in docker("inspect", "-f", line, *project.containers().values()).splitlines()}


def releases(project: Project) -> dict[str, Any]:
    return json.loads(project.invoke("releases", "--json").stdout)


def planned(project: Project) -> dict[str, list[str]]:
    """Causes by service of what a deploy would do to services."""
    document = json.loads(project.invoke("deploy", "--plan", "--json").stdout)
    services = set(docker("ps", "-a", "--format", '{{.Label "com.docker.compose.service"}}').split())
    return {each["subject"]: each["causes"] for each in document["operations"] if each["subject"] in services}


def state_of(project: Project) -> str:
    return f"{project.name()}-state"


def forget(project: Project) -> None:
    """As if an earlier version, or plain Compose, had deployed it."""
    docker("rm", "-f", state_of(project))
    docker("volume", "rm", state_of(project))


def edit(project: Project, path: str, text: str) -> None:
    """Change a file the way git does: another file takes its place."""
    file = project.folder / path
    new = file.with_name(f"{file.name}.new")
    new.write_text(file.read_text() + text)
    new.replace(file)


def test_a_clone_without_the_secrets_is_refused_before_it_makes_others(project: Project, other: Project) -> None:
    project.invoke("deploy")
    before = standing(project)
    for command in (("deploy", "--yes"), ("deploy", "--plan"), ("secret-init",)):
        said = other.invoke(*command, code=3).stderr
        assert str(project.folder) in said and "cp -a" in said and "COMPOSE_PROJECT_NAME" in said
    assert "dev cannot be deployed" in other.invoke("doctor", code=1).stdout
    assert list((other.folder / "config/dev/secrets").iterdir()) == []
    assert standing(project) == before


def test_a_clone_changes_nothing(project: Project, other: Project) -> None:
    before = standing(project)
    shutil.copytree(project.folder / "config/dev/secrets", other.folder / "config/dev/secrets", dirs_exist_ok=True)
    done = other.invoke("deploy", "--plan")
    assert "nothing to do" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "were started from" in line]
    assert str(project.folder) in line and "Keep that folder." in line
    assert "nothing to change" in other.invoke("deploy", "--yes").stdout
    assert standing(project) == before
    assert releases(other) == releases(project)
    assert [each["folder"] for each in releases(other)["releases"]] == [str(project.folder)]


def test_what_a_clone_deploys_the_first_one_sees(project: Project, other: Project) -> None:
    before = standing(project)
    edit(other, "services/web/web/pages.py", "# another version\n")
    other.invoke("deploy", "--yes")
    changed = {each[0] for each in standing(project) - before}
    assert changed == {f"/{name}" for name in project.containers() if "-web-" in name}
    assert planned(other) == {}
    assert planned(project) == {"web": ["its source changed"]}
    assert [each["number"] for each in releases(project)["releases"]] == [1, 2]


def test_a_clone_rolls_back(project: Project, other: Project) -> None:
    assert "is back on release 1" in other.invoke("rollback").stdout
    assert planned(project) == {}
    assert planned(other).keys() == {"web"}
    assert project.health()["healthy"] is True
    shutil.copy(project.folder / "services/web/web/pages.py", other.folder / "services/web/web/pages.py")
    assert planned(other) == {}


@pytest.mark.fault
def test_nginx_is_replaced_where_a_reload_would_find_the_old_files(project: Project, other: Project) -> None:
    (old,) = [identity for name, identity in project.containers().items() if "-nginx-" in name]
    edit(other, "infrastructure/nginx/http.conf", "# another version\n")
    other.invoke("deploy", "--yes")
    (new,) = [identity for name, identity in project.containers().items() if "-nginx-" in name]
    assert new != old
    assert f"{other.folder}/infrastructure/nginx" in docker("inspect", "-f", "{{json .Mounts}}", new)
    assert planned(project) == {"nginx": ["infrastructure/nginx/http.conf changed"]}
    shutil.copy(other.folder / "infrastructure/nginx/http.conf", project.folder / "infrastructure/nginx/http.conf")
    assert planned(project) == {}


# ── two users ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def colleague(other: Project) -> Iterator[Project]:
    """A second user of the engine with a clone of their own, or the reason why there is none."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    # Not below pytest's folder for temporary files, which it closes to others time and again.
    with tempfile.TemporaryDirectory(prefix="colleague-") as name:
        folder = Path(name)
        shutil.copytree(other.folder, folder / "checkout")
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, USER, USER, follow_symlinks=False)
        identity = {"HOME": name, "USER": "nobody", "LOGNAME": "nobody"}
        # Compose and buildx write temporary files, and root's folder for them may be closed to others.
        environ = {**identity, "TMPDIR": name, "PYTHONPATH": sysconfig.get_path("purelib")}
        user = Colleague(folder / "checkout", environ)
        imports = "import invoke, dotenv, rich, cryptography"
        if subprocess.run(user.argv("-c", imports), env={**os.environ, **environ}, cwd=folder).returncode:
            pytest.skip("no Python that another user can run has the requirements of the project")
        yield user


class Colleague(Project):
    """A project driven by a member of the group that owns the engine's socket, and by nobody else."""

    def argv(self, *arguments: str) -> list[str]:
        identity = ("--reuid", str(USER), "--regid", str(USER), "--groups", str(SOCKET.stat().st_gid))
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return ["setpriv", *identity, shutil.which(version, path="/usr/bin:/usr/local/bin") or version, *arguments]

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        return self.argv("-m", "invoke", *arguments)


@pytest.mark.fault
def test_a_colleague_sees_the_same(project: Project, colleague: Colleague) -> None:
    before = standing(project)
    assert "nothing to do" in colleague.invoke("deploy", "--plan").stdout
    assert "nothing to change" in colleague.invoke("deploy", "--yes").stdout
    assert standing(project) == before
    assert releases(colleague) == releases(project)


@pytest.mark.fault
def test_a_colleague_deploys_and_rolls_back(project: Project, colleague: Colleague) -> None:
    edit(colleague, "services/web/web/pages.py", "# of a colleague\n")
    colleague.invoke("deploy", "--yes")
    assert releases(project)["releases"][-1]["by"].startswith("nobody@")
    assert planned(project).keys() == {"web"}
    colleague.invoke("rollback")
    assert planned(project) == {}


@pytest.mark.fault
def test_a_colleague_in_somebody_elses_folder_gets_a_sentence(project: Project, colleague: Colleague) -> None:
    before = standing(project)
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(project.folder, folder / "checkout")
        (folder / "checkout").chmod(0o755)
        there = Colleague(folder / "checkout", colleague.environ)
        said = there.invoke("deploy", "--yes", code=3).stderr
        assert "cannot be read" in said and "Several people on one server" in said
        there.invoke("status", code=None)
    assert standing(project) == before


# ── what nobody noted ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault
def test_a_project_of_an_earlier_version_is_adopted(project: Project, other: Project) -> None:
    before, history = standing(project), releases(project)["releases"]
    state = project.folder / ".state" / "dev"
    folders = {identity: home(identity) for identity in project.containers().values()}
    content = {
        identity: {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in mounted(identity, folder)}
        for identity, folder in folders.items()
    }
    (state / "content.json").write_text(json.dumps(content))
    for each in history:
        place = state / "releases" / str(each["number"])
        place.mkdir(parents=True)
        (place / "release.json").write_text(json.dumps({key: each[key] for key in each if key != "folder"}))
    forget(project)
    assert planned(project) == {}
    project.invoke("deploy", "--yes")
    assert standing(project) == before
    assert [each["number"] for each in releases(other)["releases"]] == [each["number"] for each in history]
    assert not (state / "content.json").exists() and not (state / "releases").exists()
    assert {path.suffix for path in state.iterdir()} == {".log"}


def home(container: str) -> Path:
    """The folder that a container was started from."""
    return Path(docker("inspect", "-f", '{{index .Config.Labels "com.docker.compose.project.working_dir"}}', container))


def mounted(container: str, folder: Path) -> Iterator[str]:
    """Files of a folder that a container has mounted, as the earlier version noted them."""
    for mount in json.loads(docker("inspect", "-f", "{{json .Mounts}}", container)):
        source = Path(mount["Source"])
        if not source.is_relative_to(folder) or mount["Destination"].startswith("/docker-entrypoint-initdb.d"):
            continue
        for path in [source, *source.rglob("*")] if source.is_dir() else [source]:
            if path.is_file() and "initdb" not in path.parts and "__pycache__" not in path.parts:
                yield str(path.relative_to(folder))


@pytest.mark.fault
def test_containers_that_nobody_noted_are_compared_with_what_they_mount(project: Project, other: Project) -> None:
    before = standing(project)
    forget(project)
    for folder in (project, other):
        for path in (folder.folder / "infrastructure").rglob("*"):
            path.touch()
    assert planned(project) == {}
    assert planned(other) == {}
    other.invoke("deploy", "--yes")
    assert standing(project) == before
    assert docker("volume", "inspect", "-f", '{{index .Labels "com.docker.compose.project"}}', state_of(project))


@pytest.mark.fault
def test_a_secret_that_was_replaced_is_noticed_although_nobody_noted_it(project: Project) -> None:
    forget(project)
    secret = project.folder / "config/dev/secrets/JWT_SECRET_PREVIOUS"
    old = secret.read_bytes()
    new = secret.with_name(".new")
    new.write_text("x" * 43)
    new.chmod(0o444)
    new.replace(secret)
    try:
        assert {"api", "auth-service"} <= planned(project).keys()
        assert "config/dev/secrets/JWT_SECRET_PREVIOUS changed" in planned(project)["api"]
    finally:
        secret.unlink()
        secret.write_bytes(old)
        secret.chmod(0o444)
    assert planned(project) == {}


@pytest.mark.fault
def test_a_pruned_container_is_no_loss(project: Project, other: Project) -> None:
    project.invoke("deploy", "--yes")
    other_view = releases(other)
    docker("rm", "-f", state_of(project))
    assert releases(project) == other_view


@pytest.mark.fault
def test_a_folder_that_was_deleted(project: Project, other: Project) -> None:
    other.folder.rename(other.folder.with_name("moved"))
    assert planned(project) == {"nginx": ["mounts files of a folder that is gone"]}
    warned = [each for each in project.health()["checks"] if each["name"] == "folder"]
    assert [(each["target"], each["status"]) for each in warned] == [("nginx-1", "warn")]
    project.invoke("deploy", "--yes")
    assert planned(project) == {}
    other.folder.with_name("moved").rename(other.folder)


def test_down_keeps_what_was_deployed_and_volumes_takes_it_along(project: Project, other: Project) -> None:
    history = releases(project)
    project.invoke("down")
    assert releases(other) == history
    project.invoke("down", "--volumes", "--yes")
    assert releases(other)["releases"] == []
    assert project.volumes() == set()
    assert docker("ps", "-aq", "-f", f"name={state_of(project)}") == ""
