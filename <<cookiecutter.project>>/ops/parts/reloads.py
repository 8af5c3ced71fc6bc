"""A changed configuration that a running container takes without a restart: the same for nginx and for HAProxy."""

from __future__ import annotations

from collections.abc import Callable

from ops import engine
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.engine import Container

# Taken within milliseconds; on a busy machine a second or two.
SECONDS = 20.0
PAUSE = 0.1


def take(container: Container, name: str, script: str, changed: Callable[[], bool]) -> None:
    """Run a script in a container that checks its configuration and sends the signal, and wait until it counts.

    name: of the part, for people; changed: whether the new configuration is at work. Raises OpsError when the
    configuration is refused, or not taken in time: the part then keeps working with the old one.
    """
    # One script: the engine lets it come to its end although the command that began it is killed.
    done = engine.exec_(container.id, ["sh", "-ec", script], check=False)
    if not done.ok:
        lines = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines())
        raise OpsError(
            f"{name} refuses its new configuration and keeps the old one:\n{lines}", "Fix it and deploy again."
        )
    if not until(changed, SECONDS, PAUSE):
        raise OpsError(
            f"{name} did not take its new configuration within {SECONDS:.0f} s; it works with the old one.",
            f"See why: invoke logs --service {container.service}",
        )
