"""Making secrets."""

import os
import stat
from pathlib import Path

import pytest

from ops.secrets import definitions, files, make
from ops.secrets.catalogue import ALPHABET, BY_NAME, CATALOGUE


def test_all_of_them_are_made(env):
    created = make.init(env, None)
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
    (env.secrets_dir / "PATRONI_PASSWORD").write_text("mine")
    (env.secrets_dir / "REDIS_PASSWORD").write_text("")
    make.init(env, None)
    assert files.read(env, "PATRONI_PASSWORD") == "mine"
    assert files.read(env, "REDIS_PASSWORD") == ""


def test_a_second_run_changes_nothing(made):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.secrets_dir.iterdir()}
    assert make.init(made, None) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.secrets_dir.iterdir()} == before


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(env, umask):
    previous = os.umask(umask)
    try:
        make.init(env, None)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(env.secrets_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in env.secrets_dir.iterdir()} == {0o444}


def test_a_folder_that_knows_no_links_will_do(env, monkeypatch):
    def refuse(*_args):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert len(make.init(env, None)) == len(CATALOGUE) + 1
    assert make.init(env, None) == []


def test_whoever_comes_first_wins(env, monkeypatch):
    """Another process makes the file between the look and the link."""
    link = os.link

    def late(source, target):
        Path(target).write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    target = env.secrets_dir / "PATRONI_PASSWORD"
    assert files.publish_new(target, b"ours") is False
    assert target.read_text() == "theirs"
    assert [path.name for path in env.secrets_dir.iterdir()] == ["PATRONI_PASSWORD"]


def of_services(env, **secrets):
    """A resolved configuration in which a service of the team reads these secrets, with their labels."""
    entries = {
        name: {"file": str(env.secrets_dir / name), **({"labels": labels} if labels else {})}
        for name, labels in secrets.items()
    }
    shop = {"labels": {"ops.schema": "shop"}, "secrets": [{"source": name} for name in secrets]}
    return {"services": {"shop": shop}, "secrets": entries}


def test_what_the_services_declare_is_made_too(env):
    document = of_services(
        env,
        SHOP_DB_PASSWORD={},
        SHOP_KEY={"ops.generate": "true", "ops.length": "86", "ops.keeps": "SHOP_KEY_PREVIOUS"},
        SHOP_KEY_PREVIOUS={},
        STRIPE_KEY={},
    )
    created = make.init(env, document)
    assert created[-4:] == ["SHOP_DB_PASSWORD", "SHOP_KEY", "SHOP_KEY_PREVIOUS", definitions.FILE]
    assert [len(files.read(env, name)) for name in created[-4:-1]] == [43, 86, 0]
    assert not (env.secrets_dir / "STRIPE_KEY").exists(), "a person provides it"
    assert make.init(env, document) == []
