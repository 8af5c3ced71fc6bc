"""Maintenance: the switch, and what it says."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base.errors import USAGE, OpsError
from ops.parts.nginx import maintenance
from ops.stack.model import Mount, Service
from ops.state import digests


@pytest.fixture(autouse=True)
def folder(env, monkeypatch):
    """Where nginx looks for the switch."""
    monkeypatch.setattr(engine, "containers", lambda _env: [])
    path = env.env_file.parent / "nginx"
    path.mkdir()
    return path


@pytest.fixture
def other(env, tmp_path, make_container, monkeypatch):
    """The folder of another checkout, which nginx was started from."""
    path = tmp_path / "other"
    path.mkdir()
    nginx = make_container("nginx", mounts={"/etc/nginx/env": str(path)})
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("web"), nginx])
    return path


def test_on_and_off(env, folder, capsys) -> None:
    assert maintenance.since(env) is None
    maintenance.switch(env, "on")
    began = maintenance.since(env)
    assert began
    assert (folder / "maintenance.on").stat().st_mode & 0o777 == 0o644
    maintenance.switch(env, "on")
    assert maintenance.since(env) == began
    maintenance.switch(env, "status")
    assert "maintenance of dev is on since " in capsys.readouterr().out
    maintenance.switch(env, "off")
    maintenance.switch(env, "off")
    assert maintenance.since(env) is None


def test_nginx_of_another_checkout_is_reached_and_so_is_the_next_one(env, folder, other) -> None:
    maintenance.close(env, "upgrade-database")
    assert [(path / "maintenance.on").read_text() for path in (folder, other)] == ["upgrade-database"] * 2
    maintenance.reopen(env, "upgrade-database")
    assert [path.exists() for path in (folder / "maintenance.on", other / "maintenance.on")] == [False, False]


def test_what_nginx_sees_counts(env, folder, other) -> None:
    (folder / "maintenance.on").touch()
    assert maintenance.since(env) is None
    (other / "maintenance.on").touch()
    assert maintenance.since(env)


@pytest.mark.parametrize(("code", "said", "began"), [(0, "1000\n", 1000.0), (1, "", None)])
def test_a_folder_that_is_closed_to_us_is_not_closed_to_nginx(env, other, monkeypatch, code, said, began) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: engine.Completed((), code, said, ""))
    monkeypatch.setattr(maintenance.Path, "stat", refuse)
    monkeypatch.setattr(maintenance.Path, "read_text", refuse)
    assert maintenance.since(env) == began
    assert maintenance.closed_by(env) is None
    with pytest.raises(OpsError, match="Maintenance cannot be switched"):
        maintenance.close(env)


def test_a_folder_that_one_may_not_write_to(env, other, monkeypatch) -> None:
    other.rmdir()
    with pytest.raises(OpsError, match=r"Maintenance cannot be switched: other: No such file"):
        maintenance.switch(env, "on")


def test_another_word(env) -> None:
    with pytest.raises(OpsError, match='"maybe" is neither') as caught:
        maintenance.switch(env, "maybe")
    assert caught.value.code == USAGE


def test_it_is_no_change_of_configuration(env, folder, make_stack) -> None:
    maintenance.switch(env, "on")
    (folder / "nginx.conf").touch()
    nginx = Service("nginx", "nginx:1", labels={"ops.part": "edge"}, mounts=(Mount(folder, "/etc/nginx/env"),))
    found = digests.mounted_files(make_stack(nginx), env.project_dir)["nginx"]
    assert list(found) == ["config/dev/nginx/nginx.conf"]


def test_a_command_opens_what_it_has_closed(env) -> None:
    maintenance.close(env, "upgrade-database")
    assert maintenance.closed_by(env) == "upgrade-database"
    maintenance.reopen(env, "upgrade-database")
    assert maintenance.closed_by(env) is None


def test_and_nothing_else(env) -> None:
    maintenance.switch(env, "on")
    maintenance.close(env, "upgrade-database")
    maintenance.reopen(env, "upgrade-database")
    assert maintenance.closed_by(env) == ""
