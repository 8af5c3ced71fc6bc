"""The services while their data is replaced underneath them: away, and back again."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

from ops import engine
from ops.engine import Container
from ops.errors import OpsError

# They hold connections, caches and queues that belong to the old data.
NAMES = ("web", "api", "auth-service", "notification-service")

# As long as a deploy waits for the same services.
HEALTHY_SECONDS = 180


def stop(containers: Sequence[Container]) -> None:
    """Stop containers, each within its own grace period."""
    if containers:
        engine.docker("stop", *(each.id for each in containers), timeout=None)


def start(containers: Sequence[Container]) -> None:
    """Start containers that exist; those that run go on."""
    if containers:
        engine.docker("start", *(each.id for each in containers))


def wait_healthy(containers: Sequence[Container]) -> None:
    """Wait until all are healthy. Raises OpsError naming those that are not in time."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    waiting = [each.id for each in containers]
    while waiting:
        current = [engine.container(each) for each in engine.inspect(waiting)]
        late = [each for each in current if not each.ready]
        waiting = [each.id for each in late]
        if late and time.monotonic() > deadline:
            names = ", ".join(f"{each.name} ({each.health or each.state})" for each in late)
            raise OpsError(
                f"Not healthy after {HEALTHY_SECONDS} s: {names}.", f"invoke logs --service {late[0].service}"
            )
        if late:
            time.sleep(0.5)


@contextlib.contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals for a while. Only the main thread can, and only it receives them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
