"""Nothing is deployed, and one of two replicas fails: how many requests fail with it, behind each front."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.bench.edge_parts import engine
from tests.bench.edge_parts.fronts import TLS_PORT, Kamal, plain_nginx, replicas
from tests.bench.rollouts import table
from tests.load.report import Phase
from tests.load.run import Load
from tests.stack.project import Project, docker, eventually
from tests.stack.rollouts import ENVIRONMENT

RATE, REQUESTS = 40, 500
# Seconds. An answer that takes longer has failed: nobody waits for it.
PATIENCE = 3
# How long a fault goes on after the last request that counts, so that it cannot be rescued by the end of the fault.
AFTER = PATIENCE + 1
# Until every front has found out that all is well again.
RECOVERY = 12


def told(name: str) -> Callable[[str], Callable[[], object]]:
    """A fault that the service reads from a file."""

    def begin(container: str) -> Callable[[], object]:
        docker("exec", container, "touch", f"/tmp/{name}")
        return lambda: docker("exec", container, "rm", f"/tmp/{name}")

    return begin


def hang(container: str) -> Callable[[], object]:
    """Stopped in the middle of everything: connections are taken by the kernel and nobody answers.

    Not by `docker kill`: after that the engine does not restart the container, which its watchdog ends afterwards.
    """
    process = engine.running_pid(container)
    os.kill(process, signal.SIGSTOP)
    return lambda: os.kill(process, signal.SIGCONT)


def crash(container: str) -> Callable[[], object]:
    """Its process is gone; the engine starts it again by its restart policy."""
    os.kill(engine.running_pid(container), signal.SIGKILL)
    return lambda: None


FAULTS: dict[str, Callable[[str], Callable[[], object]]] = {
    "not ready (answers 503)": told("unready"),
    "hangs (SIGSTOP)": hang,
    "crashes": crash,
    "answers 500, its check is fine": told("failing"),
    "slow (5 s an answer), its check is fine": told("slow"),
}


def measure(project: Project, proxy: Kamal, rounds: int) -> str:
    """The table: failed of 500, each round, by fault and front.

    All fronts stand before the same two containers and meet the same fault at the same time, each with its own load.
    """
    victims = replicas(project, "web")
    proxy.send("web", victims)
    with plain_nginx(project) as nginx:
        targets = {
            "our edge": "",
            "plain nginx": f"{engine.address(nginx)}:{TLS_PORT}",
            "kamal-proxy": proxy.target(),
        }
        rows = []
        for what, fault in FAULTS.items():
            found = [once(project, targets, victims[number % len(victims)], fault) for number in range(rounds)]
            cells = (", ".join(str(each[name]) for each in found) for name in targets)
            rows.append([f"one of {len(victims)} {what}", *cells])
            print(rows[-1], flush=True)
    return table((f"of {REQUESTS}, failed", *targets), rows)


def once(
    project: Project, targets: Mapping[str, str], victim: str, fault: Callable[[str], Callable[[], object]]
) -> dict[str, int]:
    """How many of 500 requests failed during one fault, by front."""
    with ExitStack() as stack:
        loads = {
            name: stack.enter_context(Load(project, ENVIRONMENT, rate=RATE, target=target, mixture="probes"))
            for name, target in targets.items()
        }
        time.sleep(1)
        for load in loads.values():
            load.enter("fault")
        with lasting(fault, victim):
            time.sleep(REQUESTS / RATE)
            for load in loads.values():
                load.enter("after")
            time.sleep(AFTER)
    eventually(lambda: serves(victim), 60, f"{victim} serves again")
    time.sleep(RECOVERY)
    return {name: failures(load.report.phase("fault")) for name, load in loads.items()}


def failures(phase: Phase) -> int:
    """Requests without a right answer in time."""
    return sum(bool(each.lost) or each.took > PATIENCE for each in phase.samples)


@contextmanager
def lasting(fault: Callable[[str], Callable[[], object]], victim: str) -> Iterator[None]:
    """The fault, as long as the block."""
    end = fault(victim)
    try:
        yield
    finally:
        end()


def serves(container: str) -> bool:
    """Whether it says that it takes requests."""
    return any(f'"status":"{each}"' in says(container) for each in ("ready", "degraded"))


def says(container: str) -> str:
    """What it answers when it is asked whether it is ready."""
    return docker("exec", container, "python", "-S", "-m", "stack.probe", "ready", check=False)
