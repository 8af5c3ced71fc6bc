"""Old images of an environment are removed by its label; whatever else is on the engine stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project, docker

# By what an image is: its tags below the project's name, whether it has the label, and whether it stays.
IMAGES = {
    "old": (["web:000000000001"], True, False),
    "old, made twice": (["web:000000000002", "web:000000000003"], True, False),
    "without a name": ([], True, False),
    "deployed": (["web:000000000004", "web:dev"], True, True),
    "named by somebody": (["web:mine"], True, True),
    "of a release": (["web:000000000005"], True, True),
    "of a running container": (["web:000000000006", "web:000000000007"], True, True),
    "of a stopped container": (["web:000000000008"], True, True),
    "of somebody else": (["web:000000000009"], False, True),
}


@pytest.fixture
def built(project: Project, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Image ids by what they are."""
    found = {}
    for number, (kind, (tags, labelled, _)) in enumerate(IMAGES.items()):
        (tmp_path / "Dockerfile").write_text(
            f"FROM {project.settings()['NGINX_IMAGE'].partition('}')[2]}\nENV N={number}\n"
        )
        label = f"ops.project={project.name()}{'' if labelled else '-other'}"
        names = [part for tag in tags for part in ("--tag", f"{project.name()}/{tag}")]
        found[kind] = docker("build", "--quiet", "--label", label, *names, str(tmp_path))
    yield found
    docker("rmi", "--force", *found.values(), check=False)


@pytest.fixture
def containers(built: dict[str, str]) -> Iterator[None]:
    """Somebody else's containers of two of them, one that runs and one that ended."""
    running = docker("run", "--detach", "--entrypoint", "sleep", built["of a running container"], "60")
    stopped = docker("create", built["of a stopped container"])
    yield
    docker("rm", "--force", running, stopped)


def test_only_old_ones_of_our_own_go(project: Project, built: dict[str, str], containers: None) -> None:
    volume = docker("volume", "create", "--label", f"com.docker.compose.project={project.name()}")
    code = (
        "from ops.base import environments; from ops.stack import images;"
        f"images.prune(environments.load(), {{{built['of a release']!r}}})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project.folder, check=True)
    present = docker("images", "--all", "--quiet", "--no-trunc").split()
    assert {kind: identity in present for kind, identity in built.items()} == {
        kind: stays for kind, (_, _, stays) in IMAGES.items()
    }
    # No name is taken from what stays.
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{project.name()}/*").split()
    assert {f"{project.name()}/{tag}" for tags, _, stays in IMAGES.values() if stays for tag in tags} == set(names)
    assert project.volumes() == {volume}
