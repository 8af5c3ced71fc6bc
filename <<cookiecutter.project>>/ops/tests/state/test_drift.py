"""How a container differs from what is declared."""

from __future__ import annotations

import pytest

from ops.state.drift import LEFT_BEHIND, NEW_CONFIGURATION, NEW_IMAGE, Declared, Drift, drift

DECLARED = Declared("hash", "sha256:1", {"nginx.conf": "a"})


def test_as_declared(make_container) -> None:
    assert drift(make_container("web"), DECLARED, {"nginx.conf": "a"}) == Drift()
    assert Drift().reason == ""


def test_an_image_that_is_not_known_yet_is_no_difference(make_container) -> None:
    assert not drift(make_container("web"), Declared("hash"), {}).image


@pytest.mark.parametrize(
    ("changes", "mounted", "reason"),
    [
        ({"config_hash": "other"}, {"nginx.conf": "a"}, NEW_CONFIGURATION),
        ({"image_id": "sha256:2"}, {"nginx.conf": "a"}, NEW_IMAGE),
        ({"restart_policy": "no"}, {"nginx.conf": "a"}, LEFT_BEHIND),
        ({}, {"nginx.conf": "b"}, "nginx.conf changed"),
        ({}, {"nginx.conf": "b", "old.conf": "b"}, "nginx.conf and 1 more changed"),
        # What weighs most is told first.
        ({"config_hash": "other", "image_id": "sha256:2"}, {}, NEW_CONFIGURATION),
        ({"image_id": "sha256:2", "restart_policy": "no"}, {}, NEW_IMAGE),
        ({"restart_policy": "no"}, {}, LEFT_BEHIND),
    ],
)
def test_reasons(make_container, changes, mounted, reason: str) -> None:
    assert drift(make_container("web", **changes), DECLARED, mounted).reason == reason


def test_a_folder_that_is_gone_is_a_reason(make_container) -> None:
    found = drift(make_container("web"), DECLARED, {"nginx.conf": "a"}, elsewhere=True, homeless=True)
    assert found.reason == "mounts files of a folder that is gone"


def test_another_folder_alone_changes_nothing(make_container) -> None:
    found = drift(make_container("web"), DECLARED, {"nginx.conf": "a"}, elsewhere=True)
    assert (found.elsewhere, found.reason) == (True, "")
