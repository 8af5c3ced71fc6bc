"""Making secrets."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ops.secrets import definitions, files, make
from ops.secrets.catalogue import ALPHABET, BY_NAME, CATALOGUE


def test_all_of_them_are_made(env):
    created = make.init(env)
    assert created == [*(secret.name for secret in CATALOGUE), definitions.FILE]
    assert stat.S_IMODE(env.secrets_dir.stat().st_mode) == 0o700
    values = set()
    for secret in CATALOGUE:
        path = env.secrets_dir / secret.name
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        value = path.read_text()
        assert len(value) == secret.length
        assert set(value) <= set(ALPHABET)
        assert not value.startswith(("-", "_"))
        values.add(value)
    assert len(values) == sum(1 for secret in CATALOGUE if secret.length) + 1
    assert {path.name for path in env.secrets_dir.iterdir()} == {*BY_NAME, definitions.FILE}


def test_nothing_is_ever_overwritten(env):
    (env.secrets_dir / "JWT_SECRET").write_text("mine")
    (env.secrets_dir / "REDIS_PASSWORD").write_text("")
    make.init(env)
    assert files.read(env, "JWT_SECRET") == "mine"
    assert files.read(env, "REDIS_PASSWORD") == ""


def test_a_second_run_changes_nothing(made):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.secrets_dir.iterdir()}
    assert make.init(made) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.secrets_dir.iterdir()} == before


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(env, umask):
    previous = os.umask(umask)
    try:
        make.init(env)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(env.secrets_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in env.secrets_dir.iterdir()} == {0o444}


def test_a_folder_that_knows_no_links_will_do(env, monkeypatch):
    def refuse(*_args):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert len(make.init(env)) == len(CATALOGUE) + 1
    assert make.init(env) == []


def test_whoever_comes_first_wins(env, monkeypatch):
    """Another process makes the file between the look and the link."""
    link = os.link

    def late(source, target):
        Path(target).write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    target = env.secrets_dir / "JWT_SECRET"
    assert files.publish_new(target, b"ours") is False
    assert target.read_text() == "theirs"
    assert [path.name for path in env.secrets_dir.iterdir()] == ["JWT_SECRET"]


def test_the_standard_library_is_enough_to_make_them(env, tmp_path):
    program = (
        "import sys; from pathlib import Path; from ops.secrets.make import create;"
        "print(len(create(Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    source = env.project_dir / definitions.SOURCE
    ops = Path(make.__file__).parents[2]
    # -S: without site-packages
    command = [sys.executable, "-S", "-B", "-c", program, str(tmp_path / "other"), str(source)]
    done = subprocess.run(command, cwd=ops, capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(CATALOGUE) + 1}\n"
