"""Times on the command line: one meaning or none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ops.base.errors import USAGE, OpsError
from ops.data import moment

SEOUL = timezone(timedelta(hours=9))
NOW = datetime(2026, 11, 22, 15, 0, tzinfo=SEOUL)
WANTED = datetime(2026, 11, 22, 5, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22 14:03:00+09:00",
        "2026-11-22T05:03:00Z",
        "2026-11-22 05:03 UTC",
        "2026-11-22 06:03:00 +01",
        "2026-11-22 00:03:00-0500",
        " 2026-11-22 14:03+09:00 ",
    ],
)
def test_a_time_with_its_zone(text: str) -> None:
    assert moment.parse(text, NOW) == WANTED


def test_fractions_of_a_second_count() -> None:
    assert moment.parse("2026-11-22 05:03:00.25Z", NOW) == WANTED + timedelta(milliseconds=250)


def test_all_that_there_is() -> None:
    assert moment.parse("newest", NOW) is None


def test_without_a_zone_it_is_refused_and_both_meanings_are_said() -> None:
    with pytest.raises(OpsError, match="has no time zone") as caught:
        moment.parse("2026-11-22 14:03", NOW)
    assert '--to "2026-11-22 14:03:00+09:00"' in caught.value.remedy
    assert '--to "2026-11-22 14:03:00Z"' in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "14:03",
        "2026-11-22",
        "22.11.2026 14:03+09:00",
        "2026-13-22 14:03+09:00",
        "2026-11-22 24:03+09:00",
        "2026-11-22 14:03+25:00",
        "2026-11-22 14:03 CET",
        "１２-11-22 14:03Z",
        "2026-11-22 14:03Z; rm -rf /",
        "0001-01-01 00:00+14:00",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(OpsError, match="is not a time") as caught:
        moment.parse(text, NOW)
    assert caught.value.code == USAGE and caught.value.remedy


def test_the_future_is_refused() -> None:
    assert moment.parse("2026-11-22 15:00:00+09:00", NOW) == NOW
    with pytest.raises(OpsError, match="has not come yet") as caught:
        moment.parse("2026-11-22 15:00:01+09:00", NOW)
    assert "2026-11-22 15:00:00+09:00" in caught.value.remedy
