"""Parts of a backup, as they are named on the command line."""

from __future__ import annotations

import pytest

from ops.base.errors import USAGE, OpsError
from ops.data import choice
from ops.data.choice import Part

HELD = ["postgres.dump", "databases/shop.dump", "redis.rdb", "rabbitmq.json", "volumes/files.tar.gz"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", HELD),
        ("postgres", ["postgres.dump", "databases/shop.dump"]),
        ("database:shop", ["databases/shop.dump"]),
        ("database:appdb", ["postgres.dump"]),
        ("volume:files, redis", ["redis.rdb", "volumes/files.tar.gz"]),
        ("rabbitmq,rabbitmq", ["rabbitmq.json"]),
    ],
)
def test_the_members_that_are_wanted(text: str, wanted: list[str]) -> None:
    assert choice.members(choice.parse(text), HELD, "appdb") == wanted


def test_uploads_of_an_old_archive_are_a_volume() -> None:
    held = ["postgres.dump", "redis.rdb", "rabbitmq.json", "uploads.tar.gz"]
    assert choice.members(choice.parse("volume:web_uploads"), held, "appdb") == ["uploads.tar.gz"]


@pytest.mark.parametrize("text", ["everything", "database", "database:", "redis:0", ",", "volume:a,,redis", " "])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(OpsError, match="is no part of a backup") as caught:
        choice.parse(text)
    assert caught.value.code == USAGE and "database:NAME" in caught.value.remedy


def test_what_the_backup_does_not_hold_is_refused_with_what_it_holds() -> None:
    with pytest.raises(OpsError, match="does not hold volume:uploads") as caught:
        choice.members([Part("volume", "uploads")], HELD, "appdb")
    assert caught.value.remedy == "It holds database:appdb, database:shop, rabbitmq, redis, volume:files."
