"""The catalogue of backups as commands show it."""

from __future__ import annotations

import sys

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.data import catalogue, part
from ops.stack.model import Service

NOW = 1795352400.0  # 2026-11-22 13:00 UTC
ENTRY = {
    "id": "20261122T120000Z",
    "began": "2026-11-22T12:00:00+00:00",
    "ended": "2026-11-22T12:05:00+00:00",
    "kind": "incremental",
    "size": 2048,
    "added": 1024,
    "verification": None,
}
GOOD = {"at": "2026-11-22T12:30:00+00:00", "seconds": 20.0, "good": True, "problems": [], "count": 0}
BAD = {**GOOD, "good": False, "problems": ["shop.items: 2 rows, 3 were saved [public]"], "count": 4}
PLACE = {"target": "/backups", "error": "", "remedy": "", "window": None, "entries": [], "damaged": []}


def shown(capsys, *places) -> str:
    catalogue.show_listing({"targets": [{**PLACE, **each} for each in places]}, NOW)
    return capsys.readouterr().out


def test_backups_are_listed_with_their_age_size_and_proof(capsys) -> None:
    entries = [{**ENTRY, "verification": each} for each in (None, GOOD, BAD)]
    reach = {"from": "2026-11-20T12:00:00+00:00", "until": "2026-11-22T12:59:30+00:00"}
    first, _, *rows = shown(capsys, {"entries": entries, "window": reach}).splitlines()
    assert first == (
        "/backups: 3 backups; every moment from 2026-11-20 12:00:00 UTC to 2026-11-22 12:59:30 UTC (30 s ago) can be"
        " recovered"
    )
    assert [each.split()[:1] for each in rows] == [[ENTRY["id"]]] * 3
    assert rows[0].endswith("not yet") and rows[1].endswith("30 min 0 s ago")
    assert "55 min 0 s" in rows[0] and "2.0 KiB" in rows[0] and "1.0 KiB" in rows[0] and "incremental" in rows[0]
    assert rows[2].endswith("failed 30 min 0 s ago: shop.items: 2 rows, 3 were saved [public]")


def test_what_is_missing_damaged_or_away_is_said(capsys) -> None:
    text = shown(
        capsys,
        {"damaged": ["20261121T120000Z: its part files is missing."]},
        {"target": "s3:x", "error": "It cannot be reached.", "remedy": "Check the network."},
        {"target": "/third", "entries": [ENTRY]},
        {"target": "/fourth"},
    )
    assert (
        "/backups: 0 backups; none of those that are there can be read\n  damaged: 20261121T120000Z: its part files"
        in text
    )
    assert "s3:x: It cannot be reached. Check the network." in text
    assert "/third: 1 backup; moments in between cannot be recovered" in text
    assert "/fourth: 0 backups; take one: invoke backup" in text


def test_a_backup_that_was_taken_says_what_is_not_in_it(env, capsys) -> None:
    parts = {"postgres": {"kind": "full", "size": 4096, "added": 1024}, "files": {"kind": "", "size": 0, "added": 0}}
    catalogue.show_taken(env, {**ENTRY, "parts": parts, "left_out": ["RabbitMQ: messages"]})
    assert capsys.readouterr().out.splitlines() == [
        "backup 20261122T120000Z: full, 4.0 KiB, of which 1.0 KiB were stored (5 min 0 s)",
        "  not in it: RabbitMQ: messages",
        "Prove it by restoring it: invoke backup --verify 20261122T120000Z --env dev",
    ]


def test_verifications_are_told_and_one_that_failed_counts(capsys) -> None:
    assert catalogue.show_verified([]) and "Every backup has been verified" in capsys.readouterr().out
    assert catalogue.show_verified([{**GOOD, "entry": "a"}])
    assert not catalogue.show_verified([{**GOOD, "entry": "a"}, {**BAD, "entry": "b"}])
    assert "backup b is damaged: 4 differences\n  shop.items: 2 rows" in capsys.readouterr().out


def test_a_stack_without_the_part_is_told_what_to_add(env, make_stack) -> None:
    with pytest.raises(OpsError, match="docker-compose.backup.yml") as caught:
        catalogue.require(env, make_stack())
    assert caught.value.code == REFUSED and "invoke backup --portable" in caught.value.remedy
    catalogue.require(env, make_stack(Service("backup", "")))


def test_the_right_service_does_the_work(env, monkeypatch) -> None:
    lines = []

    def argv(*arguments):
        lines.append(arguments[1:-1])
        return [sys.executable, "-c", "print('[]'); raise SystemExit(1)"]

    monkeypatch.setattr(part, "argv", argv)
    monkeypatch.setattr(part, "surroundings", lambda _env: {})
    # A proof that found damage is an answer; nothing else is.
    assert catalogue.verify(env, "latest", lambda _: None) == []
    for act in (
        lambda: catalogue.take(env, True, False, lambda _: None),
        lambda: catalogue.take(env, False, True, lambda _: None),
        lambda: catalogue.listing(env, lambda _: None),
    ):
        with pytest.raises(OpsError, match="exit code 1"):
            act()
    assert lines == [
        (["verify", "latest"], (), "backup-verify", False),
        (["take", "--full"], (), "backup", False),
        (["take", "--init"], (), "backup", False),
        (["list"], (), "backup-verify", False),
    ]


def test_a_backup_by_hand_is_not_removed_by_a_restore(env) -> None:
    line = part.argv(env, ["take"], (), "backup", False)
    assert line[line.index("run") :] == [
        *("run", "--rm", "--no-deps", "--no-TTY", "--quiet-pull", "backup", "take", "--json"),
    ]
