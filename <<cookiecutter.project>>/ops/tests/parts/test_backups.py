"""Backups in `health` and `doctor`: what the receiver's page of metrics means."""

from __future__ import annotations

import pytest

from ops.base import findings
from ops.base.environments import override
from ops.parts import backups
from ops.stack.model import Service

NOW = 1_000_000.0
HOUR = 3600.0
PAGE = """\
# HELP backup_target_up 1 when the target could be asked.
# TYPE backup_target_up gauge
backup_target_up{target="/backups"} 1.0
backup_target_up{target="s3:https://host/b/p"} 0.0
backup_last_timestamp_seconds{target="/backups"} 996400.0
backup_verified_timestamp_seconds{target="/backups"} 992800.0
backup_failed_verifications{target="/backups"} 0
backup_damages{target="/backups"} 0
backup_wal_receiving 1.0
backup_wal_received_timestamp_seconds 999999.0
backup_wal_shipped_timestamp_seconds{target="/backups"} 999970.0
"""


@pytest.fixture
def prod(env):
    """An environment with a target elsewhere and an alert after 26 hours."""
    return override(override(env, "BACKUP_TARGETS", "/backups s3:https://host/b/p"), "BACKUP_MAX_AGE_HOURS", "26")


def judged(env, **changes: float) -> dict[str, tuple[str, str]]:
    """What is said of each target, with some values of /backups changed."""
    found = backups.samples(PAGE)
    for name, value in changes.items():
        place = found[f"backup_{name}"]
        place["/backups" if "/backups" in place else ""] = value
    return {each.target: (each.status, each.detail) for each in backups.judge(env, found, NOW)}


def test_all_is_well_at_a_target(prod) -> None:
    found = judged(prod)
    assert found["/backups"] == ("ok", "last 1 h 0 min ago, last proven 2 h 0 min ago")
    assert found["WAL"][0] == found["WAL at /backups"][0] == "ok" and "30 s ago" in found["WAL at /backups"][1]
    assert found["s3:https://host/b/p"] == ("fail", f"cannot be reached: invoke backup --list --env {prod.name}")
    assert "elsewhere" not in found


@pytest.mark.parametrize(
    ("changes", "target", "status", "words"),
    [
        ({"last_timestamp_seconds": 0, "damages": 1}, "/backups", "fail", "none can be read"),
        ({"last_timestamp_seconds": NOW - 27 * HOUR}, "/backups", "fail", "last 1 d 3 h ago"),
        ({"verified_timestamp_seconds": NOW - 27 * HOUR}, "/backups", "warn", "backup --verify"),
        ({"verified_timestamp_seconds": 0}, "/backups", "warn", "proven never"),
        ({"last_timestamp_seconds": 0}, "/backups", "warn", "none yet"),
        ({"failed_verifications": 1}, "/backups", "fail", "damaged"),
        ({"damages": 2}, "/backups", "fail", "damaged"),
        ({"wal_receiving": 0}, "WAL", "fail", "received up to"),
        ({"wal_received_timestamp_seconds": NOW - HOUR}, "WAL", "fail", "1 h 0 min ago"),
        ({"wal_shipped_timestamp_seconds": NOW - HOUR}, "WAL at /backups", "fail", "1 h 0 min ago"),
        ({"wal_shipped_timestamp_seconds": 0}, "WAL at /backups", "warn", "nothing was"),
    ],
)
def test_what_is_wrong_is_said(prod, changes, target, status, words) -> None:
    found = judged(prod, **changes)[target]
    assert found[0] == status and words in found[1]


def test_targets_on_this_machine_only_are_a_warning(prod) -> None:
    here = override(prod, "BACKUP_TARGETS", "/backups /other")
    assert judged(here)["elsewhere"][0] == "warn"


def test_before_the_first_look_nothing_is_claimed(prod) -> None:
    (only,) = backups.judge(prod, {}, NOW)
    assert (only.status, only.target) == ("warn", "targets")


def test_doctor_asks_for_a_target_elsewhere_and_a_key_that_was_tried(
    prod, make_stack, make_container, monkeypatch
) -> None:
    declared = make_stack(Service(backups.RECEIVER, ""))
    running = make_container(backups.RECEIVER)
    for moment, status in (("999000.0", findings.OK), ("0.0", findings.WARNING)):
        page = f"backup_key_tried_timestamp_seconds {moment}\n"
        monkeypatch.setattr(backups, "_page", lambda _, page=page: page)
        assert [each.status for each in backups.doctor(prod, declared, [running])] == [findings.OK, status]
    here = override(prod, "BACKUP_TARGETS", "/backups")
    assert [each.status for each in backups.doctor(here, declared, [])] == [findings.WARNING]
    assert list(backups.doctor(prod, make_stack(Service("api", "")), [running])) == []
