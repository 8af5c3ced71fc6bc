"""One change of an environment at a time, whoever makes it and from wherever: a Lease in its namespace.

The holder renews it. One that was killed stops doing so, and the next command takes the Lease over when it has seen
nobody renew it for a while: that asks nothing of anybody's clock.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops import engine
from ops.base import console, undo
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import kubectl
from ops.engine.kubectl import Place
from ops.state.lock import Busy, Holder
from ops.state.releases import author

NAME = "change-lock"
# After so many seconds without a renewal the holder counts as gone; it renews well before.
SECONDS = 30
_RENEW_SECONDS = 5.0
_RETRY_SECONDS = 3.0
_PURPOSE = "stack/purpose"


@dataclass
class Lock:
    """A Lease that is held. renewed: when it was last, by our own monotonic clock."""

    env: Environment
    at: Place
    version: str
    renewed: float
    lost: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise OpsError when the Lease was lost: the cluster did not answer for too long, or somebody removed it."""
        if self.lost or time.monotonic() - self.renewed > SECONDS:
            raise OpsError(
                f"The lock of {self.env.name} is gone: the cluster did not answer, or somebody ran `invoke unlock`.",
                "Nothing more was changed. Check that nobody else is changing it (invoke status), then run it again.",
            )

    def keep(self) -> None:
        """Renew it until it is given back."""
        while not self.ended.wait(_RENEW_SECONDS):
            patch = {"metadata": {"resourceVersion": self.version}, "spec": {"renewTime": _now()}}
            with contextlib.suppress(OpsError):
                done = kubectl.run(
                    self.at,
                    *("patch", "lease", NAME, "--type=merge", "--output=json", f"--patch={json.dumps(patch)}"),
                    check=False,
                    timeout=SECONDS / 2,
                )
                if done.ok:
                    self.version = done.json()["metadata"]["resourceVersion"]
                    self.renewed = time.monotonic()
                elif "(NotFound)" in done.stderr or "(Conflict)" in done.stderr:
                    self.lost = True


@contextlib.contextmanager
def hold(env: Environment, purpose: str, wait: float = 0) -> Iterator[Lock]:
    """Hold the lock of an environment, whose namespace exists.

    purpose: the command, as it is told to those who come meanwhile; wait: for how many seconds to try again while
    somebody else has it. Raises Busy (REFUSED) after that.
    """
    at, ends = kubectl.place(env), time.monotonic() + wait
    waiting = False
    while (version := _take(env, at, purpose)) is None:
        found = kubectl.find(at, "lease", NAME)
        if not found:
            continue
        if time.monotonic() >= ends:
            raise Busy(
                f"{env.name} is being changed: {holder_of(found).describe(time.time())}.",
                f"Wait for it to end. The lock of a command that was killed is free after {SECONDS} s.",
                REFUSED,
            )
        if not waiting:
            who = holder_of(found).describe(time.time())
            console.say(f"{env.name} is being changed: {who}. Waiting for up to {console.duration(wait)}.")
        waiting = True
        time.sleep(_RETRY_SECONDS)
    lock = Lock(env, at, version, time.monotonic())
    keeper = threading.Thread(target=lock.keep, daemon=True)
    keeper.start()
    try:
        yield lock
    finally:
        lock.ended.set()
        keeper.join(SECONDS)
        if not lock.lost:
            undo.every([("giving the lock back", lambda: kubectl.delete(at, "lease", NAME))])


def _take(env: Environment, at: Place, purpose: str) -> str | None:
    """Its version when it is ours now; None when somebody else has it."""
    wanted = document(env, purpose)
    if made := _write(at, "create", wanted):
        return made
    found = kubectl.find(at, "lease", NAME)
    if not found:
        return None
    if not expired(found, time.time()):
        return None
    # By this machine's clock. Seen alive within the time, it is.
    console.say(f"{env.name} was being changed: {holder_of(found).describe(time.time())}. Waiting whether it goes on.")
    version = found["metadata"]["resourceVersion"]
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        time.sleep(_RETRY_SECONDS)
        now = kubectl.find(at, "lease", NAME)
        if not now:
            return _write(at, "create", wanted)
        if now["metadata"]["resourceVersion"] != version:
            return None
    return _write(at, "replace", {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": version}})


def _write(at: Place, verb: str, wanted: Mapping[str, Any]) -> str | None:
    """The version of what was written; None when somebody else was faster."""
    done = kubectl.run(at, verb, "--output=json", "--filename=-", input=json.dumps(wanted), check=False)
    if done.ok:
        return str(done.json()["metadata"]["resourceVersion"])
    if "AlreadyExists" in done.stderr or "(Conflict)" in done.stderr or "(NotFound)" in done.stderr:
        return None
    raise kubectl.failure(done)


def document(env: Environment, purpose: str) -> dict[str, Any]:
    """The Lease as it is taken now."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": NAME,
            "namespace": env.namespace,
            "labels": {kubectl.RECORD: env.project},
            "annotations": {_PURPOSE: purpose},
        },
        "spec": {
            "holderIdentity": author(),
            "leaseDurationSeconds": SECONDS,
            "acquireTime": _now(),
            "renewTime": _now(),
        },
    }


def expired(lease: kubectl.Object, now: float) -> bool:
    """Whether nobody has renewed it for its time, as far as the clocks agree."""
    spec = lease.get("spec") or {}
    return now - engine.timestamp(spec.get("renewTime") or "") > int(spec.get("leaseDurationSeconds") or SECONDS)


def holder(env: Environment) -> Holder | None:
    """Who holds the lock of an environment; None when nobody does."""
    found = kubectl.find(kubectl.place(env), "lease", NAME)
    return holder_of(found) if found else None


def holder_of(lease: kubectl.Object) -> Holder:
    """What a Lease says of its holder."""
    spec = lease.get("spec") or {}
    return Holder(
        spec.get("holderIdentity") or "somebody",
        (lease["metadata"].get("annotations") or {}).get(_PURPOSE, "something"),
        engine.timestamp(spec.get("acquireTime") or ""),
        NAME,
    )


def remove(env: Environment) -> None:
    """Take the lock away from whoever has it."""
    kubectl.delete(kubectl.place(env), "lease", NAME)


def _now() -> str:
    """A time as Kubernetes writes it, in microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
