"""Restores from the catalogue: what is asked of the container, what is shown, and what becomes of the archive."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base import console
from ops.base.errors import FAILED, USAGE, OpsError
from ops.data import choice, entries, restore
from ops.data.backup import Parts
from ops.data.entries import Wanted
from ops.recovery import archive
from ops.stack.model import Service
from ops.stack.owned import Owned, Role, Volume
from ops.state import swap

PLAN = {
    "entry": "20261122T050300Z",
    "target": "/backups",
    "moment": "2026-11-22T06:03:00+00:00",
    "entry_moment": "2026-11-22T05:03:00+00:00",
    "project": "acme-dev",
    "environment": "dev",
    "versions": {"postgres": "18.6", "redis": "8.2.9"},
    "members": {
        "postgres.dump": {"database_bytes": 1000, "rows": {"api.items": 3}},
        "databases/shop.dump": {"database_bytes": 1000, "rows": {}},
        "databases/gone.dump": {"database_bytes": 1000, "rows": {}},
        "redis.rdb": {"keys": 2, "expiring": 0},
        "volumes/files.tar.gz": {"files": 1, "bytes": 10},
    },
    "databases_known": True,
    "left_out": ["messages"],
    "space": 1,
}
FACTS = archive.Facts("acme", "dev", datetime(2026, 11, 22, 6, 3, tzinfo=UTC), PLAN["versions"])


class Stage:
    """The engine, the container and the machinery of restore.py, as the order in which they are used."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.calls: list[list[str]] = []
        self.plan = dict(PLAN)
        self.fails: dict[str, BaseException] = {}
        self.options: dict[str, object] = {}
        self.absent: set[str] = set()

    def note(self, word: str) -> None:
        self.done.append(word)
        if word in self.fails:
            raise self.fails[word]


@pytest.fixture
def stage(env, monkeypatch, make_stack, make_container, tmp_path):
    env.values.update(POSTGRES_DB="appdb", POSTGRES_USER="admin")
    found = Stage()
    declared = make_stack(Service("backup-verify", "acme/backup"), Service("web", "web", built=True))
    owned = Owned(
        roles=(Role("shop", "SHOP_DB_PASSWORD", "shop"),), volumes=(Volume("files", "acme-dev_files", ("web",)),)
    )
    nodes = [make_container(name) for name in ("postgres-primary", "redis-primary", "web")]

    @contextlib.contextmanager
    def hold(_env, _purpose):
        found.note("lock")
        yield SimpleNamespace(check=lambda: found.note("look again"))

    def call(_env, arguments, _tick, *, sink=None):
        found.calls.append(arguments)
        found.note("plan" if "--plan" in arguments else "archive")
        if "--plan" in arguments:
            return found.plan
        wanted = [each.partition("=")[2] for each in arguments if each.startswith("--member=")]
        with archive.create(tmp_path / "made", FACTS) as writer:
            for name in wanted:
                if name not in found.absent:
                    with writer.member(name) as member:
                        member.write(b"content")
        (path,) = (tmp_path / "made").iterdir()
        sink.write(path.read_bytes())
        path.unlink()
        return None

    def replace_data(_env, path, manifest, _held, yes, **options):
        assert path.stat().st_mode & 0o777 == 0o600 and archive.verify(path) == manifest and yes
        found.options = options
        found.note("replace")
        return restore.Result(path, 1.0, 0.5, {})

    monkeypatch.setattr(entries.lock, "hold", hold)
    monkeypatch.setattr(entries.model, "load", lambda _env: declared)
    monkeypatch.setattr(entries.part, "call", call)
    monkeypatch.setattr(entries.part, "make_image", lambda *_: None)
    monkeypatch.setattr(entries.part, "remove_left", lambda _env: found.note("remove left"))
    monkeypatch.setattr(restore, "undo_killed", lambda _env, _tick, _site: found.note("undo"))
    monkeypatch.setattr(restore, "replace_data", replace_data)
    monkeypatch.setattr(restore.Restore, "check", lambda _self: found.note("check"))
    monkeypatch.setattr(restore.Restore, "present", lambda _self: [])
    monkeypatch.setattr(entries, "find", lambda _env, _all: Parts(declared, owned, nodes[0], nodes[1], None))
    monkeypatch.setattr(engine, "containers", lambda _env: nodes)
    monkeypatch.setattr(console, "confirm", lambda *_args, **_options: found.note("ask") or True)
    return found


def left(env):
    return sorted(path.name for path in (env.project_dir / "backups/dev").iterdir())


def test_everything_is_looked_at_under_the_lock_and_asked_before_it_is_recovered(env, stage, capsys) -> None:
    result = entries.restore(env, Wanted())
    assert stage.done == [
        *("lock", "undo", "remove left", "plan", "check", "ask", "look again", "archive", "replace"),
    ]
    said = capsys.readouterr().out
    assert "backup 20261122T050300Z of /backups: dev, 2026-11-22 06:03:00 UTC" in said
    assert "PostgreSQL as of 2026-11-22 06:03:00 UTC" in said
    assert "Redis, volumes as of 2026-11-22 05:03:00 UTC, when the backup was taken" in said
    assert "database gone: no label ops.database declares it" in said
    assert left(env) == [], "the archive is of no use any more"
    assert result.source.startswith("backup 20261122T050300Z") and len(result.notes) == 2
    assert result.left_out[-1] == "messages"


def test_only_what_is_declared_and_wanted_is_recovered(env, stage) -> None:
    entries.restore(env, Wanted("2026", datetime(2026, 11, 22, 6, 3, tzinfo=UTC), "s3:"), True)
    assert stage.calls == [
        ["materialize", "2026", "--until=2026-11-22T06:03:00+00:00", "--target=s3:", "--plan"],
        [
            *("materialize", "20261122T050300Z", "--until=2026-11-22T06:03:00+00:00", "--target=s3:"),
            *("--member=postgres.dump", "--member=databases/shop.dump"),
            *("--member=volumes/files.tar.gz", "--member=redis.rdb"),
        ],
    ], "the entry that was shown, whatever was taken since"
    entries.restore(env, Wanted(until=entries.NEWEST), True, only=choice.parse("database:shop"))
    assert stage.calls[-1] == ["materialize", "20261122T050300Z", "--until=newest", "--member=databases/shop.dump"]
    assert stage.options["partly"] is True


def test_a_part_that_the_entry_lacks_is_refused_before_anything(env, stage) -> None:
    with pytest.raises(OpsError, match="does not hold rabbitmq"):
        entries.restore(env, Wanted(), True, only=choice.parse("rabbitmq"))
    assert stage.done[-1] == "plan"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"project": "shop-dev"}, "the project shop"), ({"project": "acme-prod", "environment": "prod"}, "of prod")],
)
def test_a_backup_of_somebody_else_is_refused(env, stage, changes, words) -> None:
    stage.plan.update(changes)
    with pytest.raises(OpsError, match=words) as caught:
        entries.restore(env, Wanted(), True)
    assert caught.value.code == USAGE and stage.done[-1] == "plan"


def test_what_was_recovered_is_kept_when_it_could_not_be_put_in_place(env, stage) -> None:
    stage.fails["replace"] = OpsError("The disk is full.", "Free some.", FAILED)
    with pytest.raises(OpsError, match="The disk is full") as caught:
        entries.restore(env, Wanted(), True)
    assert left(env) == ["acme-dev-recovered-20261122T050300Z.tar"]
    assert caught.value.remedy == (
        "Free some. The recovered data is kept: invoke restore"
        " backups/dev/acme-dev-recovered-20261122T050300Z.tar --env dev"
    )


@pytest.mark.parametrize("error", [OpsError("a pack is damaged"), KeyboardInterrupt()])
def test_nothing_is_kept_of_what_could_not_be_recovered(env, stage, error) -> None:
    stage.fails["archive"] = error
    with pytest.raises(type(error)):
        entries.restore(env, Wanted(), True)
    assert left(env) == [] and "replace" not in stage.done


def test_what_a_killed_restore_received_is_removed_by_the_next(env, stage) -> None:
    folder = env.project_dir / "backups/dev"
    folder.mkdir(parents=True)
    (folder / ".recovered-20261121T050300Z.partial").write_text("half")
    (folder / "acme-dev-20261121T050300Z.tar").write_text("an archive")
    entries.restore(env, Wanted(), True)
    assert left(env) == ["acme-dev-20261121T050300Z.tar"]
    assert swap.begun(env) is None


def test_a_database_that_there_was_not_yet_is_named(env, stage) -> None:
    stage.absent = {"databases/shop.dump"}
    assert "databases/shop.dump: there was none at that moment" in entries.restore(env, Wanted(), True).left_out
    with pytest.raises(OpsError, match="At that moment there was no databases/shop.dump. Nothing was changed"):
        entries.restore(env, Wanted(), True, only=choice.parse("database:shop,redis"))
    assert left(env) == []


def test_without_a_count_the_declared_databases_are_asked_for(env, stage) -> None:
    stage.plan["databases_known"] = False
    stage.plan["members"] = {"postgres.dump": {"database_bytes": 1, "rows": {}}}
    entries.restore(env, Wanted(), True)
    assert stage.calls[-1][2:] == ["--member=postgres.dump", "--member=databases/shop.dump"]
