"""What all the rungs share: a template as a clone would have it, and projects baked from it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import template
from tests.container import docker

Bake = Callable[..., Path]

# A run in the background, or under nohup, ignores these, and so would everything that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _cookiecutter_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep Cookiecutter's replay files and the user's own defaults out of the tests, and the tests out of theirs."""
    home = tmp_path_factory.mktemp("cookiecutter")
    config = home / "config.yml"
    config.write_text(f"cookiecutters_dir: {home}/templates\nreplay_dir: {home}/replay\n", encoding="utf-8")
    os.environ["COOKIECUTTER_CONFIG"] = str(config)
    return home


@pytest.fixture(scope="session", autouse=True)
def _no_repository_around(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever pytest has its temporary files: a baked project is in no repository but its own."""
    ceilings = [str(tmp_path_factory.getbasetemp()), *filter(None, [os.environ.get("GIT_CEILING_DIRECTORIES")])]
    os.environ["GIT_CEILING_DIRECTORIES"] = os.pathsep.join(ceilings)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a clone of it: what git ignores here cannot reach a project."""
    return template.export(tmp_path_factory.mktemp("template") / "enterprise-stack")


@pytest.fixture(scope="session")
def bake(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Bake a project; the same answers give the same folder, so a test must not write into it."""
    baked: dict[tuple[object, ...], Path] = {}

    def bake(hooks: bool = True, **answers: str) -> Path:
        key = (hooks, *sorted(answers.items()))
        if key not in baked:
            baked[key] = template.bake(tmp_path_factory.mktemp("bake"), exported, hooks, **answers)
        return baked[key]

    return bake


@pytest.fixture(scope="session")
def project(bake: Bake) -> Path:
    """The project of somebody who pressed Enter at every question. Not to be written into."""
    return bake()


@pytest.fixture(scope="session")
def engine() -> None:
    if not shutil.which("docker") or docker("version").returncode != 0:
        pytest.skip("no Docker engine answers")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a self-signed certificate: nginx does not judge a configuration without one."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    self_signed(folder, "localhost")
    return folder


def self_signed(folder: Path, name: str) -> None:
    """Write a certificate for a name and its key into a folder, as nginx wants them."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / "privkey.pem")]
    subject = ["-subj", f"/CN={name}", "-days", "2", "-out", str(folder / "fullchain.pem")]
    for path in folder.iterdir():
        path.unlink()
    subprocess.run(["openssl", "req", "-x509", *key, *subject], check=True, capture_output=True)
    for path in folder.iterdir():
        path.chmod(0o444)
