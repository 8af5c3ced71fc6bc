"""A new machine gets its files back: what is missing is written, and nothing is replaced."""

from __future__ import annotations

import contextlib
import io
import tarfile
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base.errors import REFUSED, OpsError
from ops.data import configuration
from ops.data.entries import Wanted
from ops.stack.model import Service

FILES = {
    "configuration/.env": b"COMPOSE_PROJECT_NAME=other\n",
    "configuration/nginx/more.conf": b"gzip on;\n",
    "secrets/BACKUP_KEY": b"key",
    "secrets/REDIS_PASSWORD": b"redis",
    "secrets/BACKUP_S3_SECRET": b"s3",
    "secrets/tls/certificate.pem": b"pem",
    "secrets/ca.key": b"key of the authority",
    "../outside": b"no",
    "/etc/passwd": b"no",
}


MODES = {"secrets/ca.key": 0o600, "configuration/nginx/more.conf": 0o666}
FOLDERS = {"configuration": 0o755, "configuration/nginx": 0o755, "secrets": 0o755, "secrets/tls": 0o755}


@pytest.fixture
def calls(env, monkeypatch, make_stack):
    found = []

    def call(_env, arguments, _tick, *, sink):
        found.append(arguments)
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            for name, mode in FOLDERS.items():
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, mode
                tar.addfile(folder)
            for name, content in FILES.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), MODES.get(name, 0o444)
                tar.addfile(info, io.BytesIO(content))

    monkeypatch.setattr(configuration.lock, "hold", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(configuration.model, "load", lambda _: make_stack(Service("backup-verify", "acme/backup")))
    monkeypatch.setattr(engine, "image_ids", lambda names: dict.fromkeys(names, ""))
    monkeypatch.setattr(engine, "compose", lambda _env, *line, **_: found.append(line) or SimpleNamespace(ok=True))
    monkeypatch.setattr(configuration.part, "require", lambda *_: None)
    monkeypatch.setattr(configuration.part, "call", call)
    monkeypatch.setattr(configuration.targets, "make_folder", lambda *_: found.append("folder"))
    (env.secrets_dir / "BACKUP_KEY").write_text("key\n")
    return found


def test_what_is_missing_is_written_and_what_differs_is_left(env, calls, tmp_path, capsys) -> None:
    before = env.env_file.read_bytes()
    (env.secrets_dir / "REDIS_PASSWORD").write_text("another")
    result = configuration.restore(env, Wanted(target="s3:"))
    assert calls == ["folder", ["configuration", "latest", "--target=s3:"]]
    assert result.written == (
        *("nginx/more.conf", "secrets/BACKUP_S3_SECRET"),
        *("secrets/ca.key", "secrets/tls/certificate.pem"),
    )
    assert result.differing == (".env", "secrets/REDIS_PASSWORD")
    assert env.env_file.read_bytes() == before and (env.secrets_dir / "REDIS_PASSWORD").read_text() == "another"
    assert (env.secrets_dir / "BACKUP_S3_SECRET").read_text() == "s3", "it was made empty, to be mounted"
    modes = {path: (env.env_file.parent / path).stat().st_mode & 0o777 for path in result.written}
    assert [*modes.values()] == [0o644, 0o444, 0o600, 0o444], "as they were, and nobody else may write"
    assert (env.secrets_dir / "tls").stat().st_mode & 0o777 == 0o755, "nginx reads it as another user"
    assert not (tmp_path / "config/outside").exists()
    configuration.show(result, env)
    said = capsys.readouterr()
    assert "wrote 4 files below config/dev" in said.out and "config/dev/.env differs" in said.err
    assert "holds no secrets" not in said.err
    assert configuration.restore(env, Wanted()).written == (), "again, it finds nothing to do"


def test_a_backup_without_secrets_says_so(env, calls, monkeypatch, capsys) -> None:
    for name in [name for name in FILES if name.startswith("secrets/") and "tls" not in name]:
        monkeypatch.delitem(FILES, name)
    configuration.show(configuration.restore(env, Wanted()), env)
    assert "The backup holds no secrets" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_without_the_key_it_says_where_to_put_it(env, calls, content) -> None:
    (env.secrets_dir / "BACKUP_KEY").unlink()
    if content is not None:
        (env.secrets_dir / "BACKUP_KEY").write_text(content)
    with pytest.raises(OpsError, match="BACKUP_KEY is missing or empty") as caught:
        configuration.restore(env, Wanted())
    assert (
        caught.value.code == REFUSED
        and "install -Dm 0444 /dev/stdin config/dev/secrets/BACKUP_KEY" in caught.value.remedy
    )
    assert calls == []


@pytest.mark.parametrize(("source", "making"), [("build", "build"), ("pull", "pull")])
def test_the_image_is_made_before_it_answers(env, calls, monkeypatch, source, making) -> None:
    """Compose would make it, too, and write into the archive what it does."""
    monkeypatch.setattr(engine, "image_ids", lambda _names: {})
    env.values["IMAGE_SOURCE"] = source
    configuration.restore(env, Wanted())
    assert calls[1] == (making, "backup-verify")
