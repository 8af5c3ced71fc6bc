"""Backups, as `invoke health` and `invoke doctor` see them: how old the last ones are, and what is not safe about them.

The WAL receiver knows, and says so on its page of metrics: no target is asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence

from ops.base import console, findings
from ops.base.environments import Environment
from ops.engine import Container
from ops.parts.probes import Check, Probe, Seen, Status, output
from ops.stack.model import Stack

TITLE = "Backups"
RECEIVER = "wal-receiver"

# Beyond that, what a lost machine or a lost database would cost is no longer seconds.
_LATE_SECONDS = 300.0
_PAGE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics', timeout=5).read().decode())"
_SAMPLE = re.compile(r'^(?P<name>\w+)(?:\{target="(?P<target>[^"]*)"\})? (?P<value>\S+)$', re.MULTILINE)

# Values by target ("" for those that have none), by name of the metric.
Samples = Mapping[str, Mapping[str, float]]


def probes(seen: Seen) -> Iterator[Probe]:
    """One look at the receiver where it runs; that it does not, its container says."""
    for each in seen.running(RECEIVER):
        yield Probe("backups", "targets", lambda each=each: _ask(seen.env, each))  # type: ignore[misc]


def _ask(env: Environment, receiver: Container) -> Iterator[Check]:
    yield from judge(env, samples(_page(receiver)), time.time())


def _page(receiver: Container) -> str:
    return output(receiver, "python3", "-S", "-c", _PAGE)


def samples(page: str) -> dict[str, dict[str, float]]:
    """What a page of metrics says of targets."""
    found: dict[str, dict[str, float]] = {}
    for each in _SAMPLE.finditer(page):
        found.setdefault(each["name"], {})[each["target"] or ""] = float(each["value"])
    return found


def judge(env: Environment, found: Samples, now: float) -> Iterator[Check]:
    """How it stands with backups. now: seconds since the epoch."""
    limit = float(env.values.get("BACKUP_MAX_AGE_HOURS") or 0) * 3600
    up = found.get("backup_target_up", {})
    if not up:
        yield Check("backups", "targets", "warn", "not looked at yet; they are, two minutes after the start")
    for target, answers in up.items():
        yield _target(env, target, bool(answers), found, limit, now)
    if (received := found.get("backup_wal_received_timestamp_seconds", {}).get("")) is not None:
        yield _late("WAL", "received", received, found.get("backup_wal_receiving", {}).get("") == 1, now)
    for target, shipped in found.get("backup_wal_shipped_timestamp_seconds", {}).items():
        yield _late(f"WAL at {target}", "brought there", shipped, True, now)
    if nearby := only_here(env):
        yield Check("backups", "elsewhere", "warn", nearby)


def _target(env: Environment, target: str, answers: bool, found: Samples, limit: float, now: float) -> Check:
    def of(name: str) -> float:
        return found.get(name, {}).get(target, 0.0)

    if not answers:
        return Check("backups", target, "fail", f"cannot be reached: invoke backup --list --env {env.name}")
    last, verified = of("backup_last_timestamp_seconds"), of("backup_verified_timestamp_seconds")
    if not last and of("backup_damages"):
        return Check("backups", target, "fail", f"none can be read: invoke backup --list --env {env.name}")
    if not last:
        return Check("backups", target, "warn", f"none yet: invoke backup --env {env.name}")
    words = f"last {_ago(now - last)}, last proven {_ago(now - verified) if verified else 'never'}"
    status: Status = "ok"
    if of("backup_failed_verifications") or of("backup_damages"):
        status, words = "fail", f"{words}; damaged: invoke backup --list --env {env.name}"
    elif limit and now - last > limit:
        status = "fail"
    elif not verified or (limit and now - verified > limit):
        status, words = "warn", f"{words}: invoke backup --verify --env {env.name}"
    return Check("backups", target, status, words)


def _late(target: str, done: str, until: float, alive: bool, now: float) -> Check:
    if not until:
        return Check("backups", target, "warn", f"nothing was {done} yet")
    late = not alive or now - until > _LATE_SECONDS
    return Check("backups", target, "fail" if late else "ok", f"{done} up to {_ago(now - until)}")


def _ago(seconds: float) -> str:
    return f"{console.duration(max(0.0, seconds))} ago"


def only_here(env: Environment) -> str:
    """What is wrong when every target is a folder of this machine; "" when one is elsewhere."""
    targets = env.values.get("BACKUP_TARGETS", "").split()
    if any(each.startswith(("s3:", "sftp:")) for each in targets):
        return ""
    return "every target is a folder of this machine: a fire or a thief takes the backups, too (BACKUP_TARGETS)"


def doctor(env: Environment, declared: Stack, containers: Sequence[Container]) -> Iterator[findings.Check]:
    """What to think of before the first visitor: backups elsewhere, and a key that somebody has tried."""
    if RECEIVER not in declared.services:
        return
    nearby = only_here(env)
    yield findings.Check(
        "backups",
        findings.WARNING if nearby else findings.OK,
        nearby or "one target at least is on another machine",
        "docs/recovery.md, Backups" if nearby else "",
    )
    for each in containers:
        if each.service == RECEIVER and each.running:
            yield _key(samples(_page(each)))


def _key(found: Samples) -> findings.Check:
    tried = found.get("backup_key_tried_timestamp_seconds", {}).get("", 0.0)
    if tried:
        words = f"a backup was restored on another machine {_ago(time.time() - tried)}"
        return findings.Check("key of backups", findings.OK, words)
    return findings.Check(
        "key of backups",
        findings.WARNING,
        "no backup was ever restored on another machine: nobody knows whether the kept BACKUP_KEY opens them",
        "Do it once: docs/disaster-recovery.md",
    )
