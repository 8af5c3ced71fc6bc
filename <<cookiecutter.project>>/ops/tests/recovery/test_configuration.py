"""The project in an entry."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ops.base.errors import OpsError
from ops.recovery import configuration
from ops.state.document import State, encode


@pytest.fixture
def grafana(tmp_path: Path) -> Path:
    path = tmp_path / "grafana.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE dashboard (id INTEGER, title TEXT)")
        database.executemany("INSERT INTO dashboard VALUES (?, ?)", [(n, f"title {n}" * 200) for n in range(100)])
    return path


def test_a_database_is_copied_while_somebody_writes(grafana: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(grafana)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM dashboard")
        assert configuration.save_grafana(tmp_path / "copy.db", grafana) == {"dashboard": 100}
    assert configuration.rows(tmp_path / "copy.db") == {"dashboard": 100}


def test_no_database_is_none(tmp_path: Path) -> None:
    assert configuration.save_grafana(tmp_path / "copy.db", tmp_path / "grafana.db") is None
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("position", [0, 3, 4096])
def test_a_damaged_database_is_an_error(grafana: Path, position: int) -> None:
    content = bytearray(grafana.read_bytes())
    content[position : position + 200] = b"\xff" * 200
    grafana.write_bytes(content)
    with pytest.raises(OpsError, match="damaged"):
        configuration.rows(grafana)


def test_secrets_are_copied_where_they_are_wanted(tmp_path: Path) -> None:
    tls = tmp_path / "secrets" / "tls"
    tls.mkdir(parents=True)
    (tls / "fullchain.pem").write_text("x")
    (tmp_path / "secrets" / "REDIS_PASSWORD").write_text("y")
    # what is mounted differs: the certificates alone, or everything
    assert configuration.copy_secrets(tmp_path / "a", all_of_them=False, source=tls) == 1
    assert configuration.copy_secrets(tmp_path / "b", all_of_them=True, source=tmp_path / "secrets") == 2
    assert (tmp_path / "a/tls/fullchain.pem").is_file()
    assert {each.name for each in (tmp_path / "b").iterdir()} == {"tls", "REDIS_PASSWORD"}


def test_what_is_not_mounted_is_nothing(tmp_path: Path) -> None:
    assert configuration.copy_configuration(tmp_path / "a", tmp_path / "nothing") == 0


def test_the_newest_release_says_which_volumes_there_are(tmp_path: Path) -> None:
    assert configuration.deployed(tmp_path / "nothing") == {}
    assert configuration.deployed(tmp_path) == {}
    older = State(1, documents={"9": {"services": {"old": {}}}})
    newer = State(2, documents={"9": {"services": {"old": {}}}, "10": {"services": {"web": {}}}})
    (tmp_path / "a").write_text(encode(older))
    (tmp_path / "b").write_text(encode(newer))
    assert configuration.deployed(tmp_path) == {"services": {"web": {}}}
    (tmp_path / "b").write_text(encode(newer)[:-9])
    assert configuration.deployed(tmp_path) == {"services": {"old": {}}}


def test_volumes_that_are_not_saved_are_named() -> None:
    def mounting(*names: str, **labels: str) -> dict:
        return {"volumes": [{"type": "volume", "source": each} for each in names], "labels": labels}

    services = {
        "web": {**mounting("uploads", "cache"), "labels": None},
        "shop": {"volumes": [{"type": "bind", "source": "/srv"}, {"type": "volume", "source": "stock"}]},
        "postgres-primary": mounting("postgres_data", **{"ops.stateful": "postgres"}),
        "redis-primary": mounting("redis_data", **{"ops.tier": "data"}),
        "nginx": mounting("edge", **{"ops.part": "edge"}),
        "prometheus": mounting("prometheus_data", "edge", **{"ops.tier": "monitoring"}),
        "backup": mounting("uploads", "backup_cache", **{"ops.part": "backup"}),
    }
    assert configuration.unsaved_volumes({"services": services}, "backup") == [
        "volume cache: no label ops.backup of web names it",
        "volume prometheus_data: metrics",
        "volume stock: no label ops.backup of shop names it",
    ]
    assert configuration.unsaved_volumes({}, "backup") == []


def test_links_of_a_mounted_object_are_copied_as_the_files_that_they_are(tmp_path: Path) -> None:
    """Kubernetes shows a ConfigMap as links into a folder that has another name after each change."""
    mounted = tmp_path / "mounted" / "nginx"
    (mounted / "..2026_11_27").mkdir(parents=True)
    (mounted / "..2026_11_27" / "nginx.conf").write_text("content")
    (mounted / "..data").symlink_to("..2026_11_27")
    (mounted / "nginx.conf").symlink_to("..data/nginx.conf")
    assert configuration.copy_configuration(tmp_path / "copy", tmp_path / "mounted") == 1
    (copied,) = (tmp_path / "copy" / "nginx").iterdir()
    assert copied.name == "nginx.conf" and not copied.is_symlink() and copied.read_text() == "content"
