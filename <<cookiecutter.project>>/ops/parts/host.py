"""The health of the machine: room on its disks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ops.base import console
from ops.base.environments import Environment
from ops.parts.probes import Check, Probe, Seen, Status

TITLE = "Host"
# Shares of a disk that are still free, as in the alerts of monitoring/prometheus/rules/host.yml.
DISK_WARN, DISK_FAIL = 0.15, 0.10


def probes(seen: Seen) -> Iterator[Probe]:
    """Measure the disks of the project's folder and of the engine."""
    yield Probe("disk", "project folder", lambda: _disks(seen.env))


def _disks(env: Environment) -> Iterator[Check]:
    places = {
        "project folder": env.project_dir,
        "docker": Path(env.values.get("DOCKER_DATA_ROOT") or "/var/lib/docker"),
    }
    seen: set[int] = set()
    for name, path in places.items():
        # An engine in a virtual machine has its folder there; one disk is measured once.
        if path.is_dir() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            yield judge_disk(name, *shutil.disk_usage(path)[::2])


def judge_disk(name: str, total: int, free: int) -> Check:
    """Whether the disk at `name` has room; bytes."""
    share = free / total
    status: Status = "fail" if share < DISK_FAIL else "warn" if share < DISK_WARN else "ok"
    return Check("disk", name, status, f"{console.size(free)} free of {console.size(total)} ({share:.0%})")
