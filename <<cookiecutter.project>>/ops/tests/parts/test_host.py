"""When a disk is too full."""

import pytest

from ops.parts import host


@pytest.mark.parametrize(("free", "status"), [(50, "ok"), (12, "warn"), (9, "fail")])
def test_disks(free, status):
    assert host.judge_disk("docker", 100, free).status == status
