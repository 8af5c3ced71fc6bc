"""The options of `invoke backup` and `invoke restore`: which of them go together, and who is asked for what."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.base.errors import USAGE, OpsError
from ops.data import command, configuration, entries, restore, scratch
from ops.data.choice import Part
from ops.data.command import BackupOptions, Options
from ops.data.entries import Wanted


@pytest.fixture
def asked(monkeypatch):
    """Who was asked, with what."""
    found = []

    def note(name):
        return lambda _env, *arguments, **_options: found.append((name, *arguments[:1]))

    for module, name in (
        (restore, "restore"),
        (restore, "undo"),
        (entries, "restore"),
        (scratch, "start"),
        (scratch, "drop"),
        (configuration, "restore"),
    ):
        monkeypatch.setattr(module, name, note(f"{module.__name__.rpartition('.')[2]}.{name}"))
    for module in (restore, scratch, configuration):
        monkeypatch.setattr(module, "show", lambda *_: None)
    return found


@pytest.mark.parametrize(
    ("said", "who", "what"),
    [
        (Options("latest"), "entries.restore", Wanted("latest")),
        (Options("20261122T050300Z", target="s3:"), "entries.restore", Wanted("20261122T050300Z", None, "s3:")),
        (
            Options(to="2026-11-22 14:03:00+09:00"),
            "entries.restore",
            Wanted("latest", datetime(2026, 11, 22, 5, 3, tzinfo=UTC)),
        ),
        (Options("latest", to="newest"), "entries.restore", Wanted("latest", "newest")),
        (Options(to="newest", into="scratch"), "scratch.start", Wanted("latest", "newest")),
        (Options(configuration=True), "configuration.restore", Wanted("latest")),
    ],
)
def test_a_moment(env, asked, said, who, what) -> None:
    command.restore(env, said)
    assert asked == [(who, what)]


@pytest.mark.parametrize("name", ["backups/dev/a.tar", "a.tar", "/tmp/a", "here"])
def test_an_archive(env, asked, name) -> None:
    (env.project_dir / "backups/dev").mkdir(parents=True)
    (env.project_dir / "backups/dev/here").touch()
    command.restore(env, Options(name))
    assert [who for who, _ in asked] == ["restore.restore"]


def test_the_ways_back(env, asked) -> None:
    command.restore(env, Options(undo=True))
    command.restore(env, Options(drop_scratch=True))
    assert [who for who, *_ in asked] == ["restore.undo", "scratch.drop"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Options(), "What is to be restored"),
        (Options(only="redis"), "What is to be restored"),
        (Options("latest", undo=True), "--undo stands alone"),
        (Options(undo=True, drop_scratch=True), "--undo stands alone"),
        (Options(drop_scratch=True, to="newest"), "--drop-scratch stands alone"),
        (Options("latest", into="elsewhere"), '--into "elsewhere" is unknown'),
        (Options(configuration=True, to="newest"), "--configuration goes with"),
        (Options("latest", to="2026-11-22 14:03"), "has no time zone"),
        (Options("latest", only="nothing"), "no part of a backup"),
        (Options("a.tar", to="newest"), "--to"),
        (Options("a.tar", into="scratch"), "--into"),
        (Options("a.tar", target="s3:"), "--target"),
    ],
)
def test_what_has_no_meaning_is_refused(env, asked, said, words) -> None:
    with pytest.raises(OpsError, match=words) as caught:
        command.restore(env, said)
    assert caught.value.code == USAGE and asked == []


def test_parts_reach_whoever_restores(env, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(entries, "restore", lambda *_args, **options: seen.update(options))
    monkeypatch.setattr(restore, "show", lambda _result: None)
    command.restore(env, Options("latest", only="database:shop,redis", keep_old=True, other_environment=True))
    assert seen["only"] == (Part("database", "shop"), Part("redis"))
    assert seen["keep_old"] and seen["other_environment"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (BackupOptions(list=True, portable=True), "--list and --portable do not go together"),
        (BackupOptions(list=True, verify=True, full=True), "--full and --list and --verify do not go together"),
        (BackupOptions(init=True, list=True), "--init and --list do not go together"),
        (BackupOptions(full=True, portable=True), "--full and --portable do not go together"),
    ],
)
def test_a_backup_is_asked_for_one_thing(env, said, words, monkeypatch) -> None:
    monkeypatch.setattr(command.model, "load", lambda _: pytest.fail("it looked at the stack"))
    with pytest.raises(OpsError, match=words) as refused:
        command.backup(env, said)
    assert refused.value.code == USAGE
