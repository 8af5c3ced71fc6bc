"""Receives the write-ahead log from whoever is the primary, for as long as this container runs.

pg_receivewal does the receiving. This starts it again when its server goes, follows the primary to another node and
another timeline, and says so when WAL was lost.
"""

from __future__ import annotations

import collections
import contextlib
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ops.base.errors import OK, OpsError
from ops.recovery import listing, metrics
from ops.recovery.log import say
from ops.recovery.metrics import Metric
from ops.recovery.postgres import client, ship, slots, state, wal
from ops.recovery.postgres.client import Unanswered
from ops.recovery.postgres.state import Gap, State
from ops.recovery.settings import Settings

LOOK_SECONDS = 5.0
# Between two attempts to receive: a failover takes seconds, and nobody shall wait for us then.
_AGAIN_SECONDS = 1.0
_STOP_SECONDS = 10.0

_LOST = re.compile(
    r"has already been removed|can no longer (get changes from|access) replication slot|slot .*invalidated"
)
# Without a reason when a timeline ended exactly where we would go on: pg_receivewal does not know that answer.
_DIVERGED = re.compile(r"is not in this server's history|START_REPLICATION\":\s*(;|$)")
_NO_SLOT = re.compile(r'replication slot "\w+" does not exist')

# What was received, and what there is to receive.
_PROGRESS = """
SELECT pg_current_wal_lsn(), coalesce(max(write_lsn), '0/0'),
  ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
FROM pg_stat_replication WHERE application_name = 'wal-receiver' AND state = 'streaming'
"""


class Receiver:
    """Receives, and keeps the account of it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.state = replace(state.read(settings.paths), error="")
        self.failures = 0
        self._clock = clock
        self._ended = threading.Event()
        self._changed = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        # Moments with the position that the primary had reached then.
        self._written: collections.deque[tuple[float, int]] = collections.deque()
        for folder in (state.stream(settings.paths), state.kept(settings.paths)):
            folder.mkdir(parents=True, exist_ok=True)

    # ── receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self) -> None:
        """Run pg_receivewal again and again until `stop`."""
        while not self._ended.is_set():
            reason = self._receive_once()
            if self._ended.is_set():
                return
            try:
                self._handle(reason)
            except OpsError as error:
                reason = error.message
            self._failed(reason)
            self._ended.wait(_AGAIN_SECONDS)

    def _receive_once(self) -> str:
        """Receive until it ends; the reason."""
        argv = [
            *("pg_receivewal", "--no-loop", "--no-password", f"--directory={state.stream(self.settings.paths)}"),
            *(f"--slot={slots.NAME}", "--status-interval=1"),
            f"--dbname={client.conninfo(self.settings, 'primary', replication=True)}",
        ]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
            self._child = child
            if self._ended.is_set():
                child.send_signal(signal.SIGINT)
            assert child.stderr
            said = collections.deque(child.stderr, maxlen=20)
        self._child = None
        return client.last_words("".join(said))

    def _handle(self, reason: str) -> None:
        """Do what another attempt needs. Raises Unanswered."""
        if self._put_aside_former():
            say("warning", "PostgreSQL was set up anew: its WAL is received from the beginning")
        elif _DIVERGED.search(reason):
            self._put_aside_diverged()
        elif _LOST.search(reason):
            self._begin_again(reason)
        elif _NO_SLOT.search(reason):
            for error in slots.keep(self.settings, self.state.position):
                say("warning", "slot could not be made", reason=error.said)

    def _put_aside_former(self) -> bool:
        """WAL of another database system has the same names; whether there was some. Its copies at the targets stay
        with the id of the volume, which is a new one from now on."""
        stream = state.stream(self.settings.paths)
        found = {wal.system_of(each) for each in stream.iterdir() if wal.segment_of(each.name)} - {0}
        if not found:
            return False
        target = client.conninfo(self.settings, "primary", replication=True)
        system = int(client.ask(target, "IDENTIFY_SYSTEM").split("|")[0])
        if found == {system}:
            return False
        for number, folder in enumerate((stream, state.kept(self.settings.paths))):
            place = state.former(self.settings.paths, min(found - {system}) + number)
            shutil.rmtree(place, ignore_errors=True)
            folder.replace(place)
            folder.mkdir()
        ship.renew_volume(self.settings)
        self._update(position=0, timeline=0)
        return True

    def _put_aside_diverged(self) -> None:
        """WAL that an old primary wrote and the new one never had would keep us from following the new one."""
        target = client.conninfo(self.settings, "primary", replication=True)
        timeline = int(client.ask(target, "IDENTIFY_SYSTEM").split("|")[1])
        _, _, history = client.ask(target, f"TIMELINE_HISTORY {timeline}").partition("|")
        stream = state.stream(self.settings.paths)
        moved = wal.diverged((each.name for each in stream.iterdir()), wal.branches(history))
        for name in moved:
            (stream / name).replace(state.kept(self.settings.paths) / name)
        say("warning", "an abandoned timeline was put aside", timeline=timeline, files=moved)

    def _begin_again(self, reason: str) -> None:
        """The server no longer has what comes next: note the gap, and receive what it still has."""
        with contextlib.suppress(Unanswered):
            self._drop_lost_slot()
        for error in slots.keep(self.settings, 0):
            say("warning", "slot could not be made", reason=error.said)
        node = next(each for each in self._nodes() if not each.standby)
        stream = state.stream(self.settings.paths)
        for each in list(stream.iterdir()):
            if wal.segment_of(each.name):
                each.replace(state.kept(self.settings.paths) / each.name)
        gap = Gap(self.state.position, node.restart, self._clock(), reason)
        self._update(gaps=(*self.state.gaps, gap))
        say(
            "error",
            "WAL was lost: moments between these positions cannot be recovered. Take a backup: invoke backup",
            first=wal.shown(gap.first),
            last=wal.shown(gap.last),
            reason=reason,
        )

    def _drop_lost_slot(self) -> None:
        for node in self._nodes():
            if not node.standby and (node.status in {"lost", "unreserved"} or not node.active):
                slots.drop(self.settings, node.host)

    def _nodes(self) -> list[slots.Node]:
        found = []
        for host in self.settings.database_hosts:
            with contextlib.suppress(Unanswered):
                found.append(slots.look(self.settings, host))
        if not any(not each.standby for each in found):
            raise Unanswered("no node is the primary")
        return found

    def _failed(self, reason: str) -> None:
        if reason != self.state.error:
            say("warning", "not receiving WAL", reason=reason)
        self.failures += 1
        self._update(error=reason)

    def stop(self) -> None:
        """Let `receive` and `watch` come to their end."""
        self._ended.set()
        if child := self._child:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)

    # ── the account ───────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self) -> None:
        """Look how far we are, and see to the slots, until `stop`."""
        unanswered: dict[str, None] = {}
        while not self._ended.wait(LOOK_SECONDS):
            with contextlib.suppress(Unanswered):
                self._look()
            now = dict.fromkeys(error.said for error in slots.keep(self.settings, self.state.position))
            for said in now.keys() - unanswered.keys():
                say("warning", "a node does not answer", reason=said)
            unanswered = now

    def _look(self) -> None:
        began = self._clock()
        answer = client.ask(client.conninfo(self.settings), _PROGRESS, LOOK_SECONDS)
        written, received, timeline = answer.split("|")
        self.note(began, wal.position(written), wal.position(received), int(timeline))

    def note(self, moment: float, written: int, received: int, timeline: int) -> None:
        """What the primary had written at a moment, and how much of its WAL is here (0: we do not receive)."""
        self._written.append((moment, written))
        until = self.state.until
        while received and self._written and self._written[0][1] <= received:
            until, _ = self._written.popleft()
        if received:
            if self.state.error or timeline != self.state.timeline:
                say("info", "receiving WAL", timeline=timeline, position=wal.shown(received))
            self._update(position=received, until=until, timeline=timeline, error="")

    def note_shipped(self, location: str, shipped: state.Shipped) -> None:
        """What a target has by now, or why it has not."""
        with self._changed:
            self.state = replace(self.state, shipped={**self.state.shipped, location: shipped})
            state.write(self.settings.paths, self.state)

    def _update(self, **changes: object) -> None:
        with self._changed:
            self.state = replace(self.state, **changes)  # type: ignore[arg-type]
            state.write(self.settings.paths, self.state)

    def metrics(self) -> Iterator[Metric]:
        """What Prometheus reads of it."""
        now = self.state
        yield Metric("backup_wal_receiving", "1 while WAL is being received.", samples=(({}, float(not now.error)),))
        yield Metric(
            "backup_wal_received_timestamp_seconds",
            "Everything that was written before this moment has been received.",
            samples=(({}, now.until),),
        )
        yield Metric(
            "backup_wal_receive_failures_total",
            "How often receiving has ended, for whatever reason.",
            "counter",
            (({}, float(self.failures)),),
        )
        yield Metric(
            "backup_wal_gaps_total",
            "How often WAL was lost before it was received.",
            "counter",
            (({}, float(len(now.gaps))),),
        )
        yield Metric(
            "backup_wal_gap_timestamp_seconds",
            "When the last loss of WAL was noticed: no moment before the next backup can be recovered.",
            samples=tuple(({}, each.at) for each in now.gaps[-1:]),
        )
        folders = (state.stream(self.settings.paths), state.kept(self.settings.paths))
        size = 0
        for folder in folders:
            for each in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    size += each.stat().st_size
        yield Metric("backup_wal_bytes", "Received WAL that is kept here.", samples=(({}, float(size)),))
        limit = float(self.settings.wal_limit_mib << 20)
        yield Metric("backup_wal_limit_bytes", "How much WAL is expected here at most.", samples=(({}, limit),))


def page(receiver: Receiver, shippers: Iterable[ship.Shipper], catalogue: listing.Watch) -> Iterator[Metric]:
    """Everything that Prometheus reads here. Where the stack has no PostgreSQL nothing is said of WAL: what was never
    received would be older than any alert allows."""
    settings = receiver.settings
    if settings.database_hosts:
        yield from receiver.metrics()
        yield from ship.metrics(shippers)
    since = state.since(settings.paths)
    yield Metric("backup_since_timestamp_seconds", "When backups of this stack began.", samples=(({}, since),))
    yield from catalogue.metrics()


def run(settings: Settings) -> int:
    """Receive, ship and clean up until SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    receiver = Receiver(settings)
    shippers = [ship.Shipper(settings, target, receiver) for target in settings.targets]
    catalogue = listing.Watch(settings)
    server = metrics.serve(lambda: list(page(receiver, shippers, catalogue)))
    threading.Thread(target=catalogue.run, daemon=True).start()
    say("info", "starts", nodes=list(settings.database_hosts), targets=[each.location for each in settings.targets])
    if not settings.database_hosts:
        where = "is outside of the stack" if settings.managed_hosts else "is not in the stack"
        say("info", f"PostgreSQL {where}: there is no WAL to receive")
        ended.wait()
        return OK
    work = [receiver.receive, receiver.watch, *(each.run for each in shippers)]
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for each in threads:
        each.start()
    ended.wait()
    receiver.stop()
    for each in threads[:2]:
        each.join(_STOP_SECONDS)
    for shipper in shippers:
        shipper.stop()
    for thread in threads[2:]:
        thread.join(_STOP_SECONDS)
    server.shutdown()
    return OK


__all__ = ["Receiver", "State", "run"]
