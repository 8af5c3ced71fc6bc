"""Redis fails over: outage, lost writes, and what the old primary does, by kind of fault; and what the sentinels cost.

    python -m tests.bench.redis_failover [--kills 10] [--others 3]

Only Redis of a stack is started. A writer asks the sentinels, and waits for a replica with every write. The control is
a writer that is cut off together with the primary, without and with WAIT. Needs an engine, and the images of a stack.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.stack import clients
from tests.stack import redis_faults as redis
from tests.stack.clients import compose, container
from tests.stack.project import Project


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--others", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Project.bake(Path(folder), project_name="Redis Bench")
        try:
            plain = cost(project, failover=False)
            compose(project, "down", "--volumes")
            with_sentinels = cost(project, failover=True)
            print(plain, with_sentinels, file=sys.stderr, flush=True)
            outcomes = []
            for fault in redis.FAULTS:
                for _ in range(asked.kills if fault == "kill" else asked.others):
                    outcomes.append(redis.endure(project, fault))
                    print(outcomes[-1], file=sys.stderr, flush=True)
            controls = [redis.alone(project, confirm) for confirm in (False, True)]
            print(*controls, sep="\n", file=sys.stderr, flush=True)
        finally:
            project.remove()
    print(
        "\n| fault | times | outage, s: median, longest | confirmed, lost | old primary a replica again, s | it took |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for fault in redis.FAULTS:
        some = [each for each in outcomes if each.fault == fault]
        outages = [each.outage for each in some]
        print(
            f"| {fault} | {len(some)} | {statistics.median(outages):.1f}, {max(outages):.1f}"
            f" | {sum(each.confirmed for each in some):,}, **{sum(each.lost for each in some)}**"
            f" | {min(each.rejoined for each in some):.0f}–{max(each.rejoined for each in some):.0f}"
            f" | {sum(each.accepted for each in some)} writes |"
        )
    for words, each in zip(("without WAIT (control)", "with WAIT"), controls, strict=True):
        print(f"| {each.fault}, {words} | 1 | – | {each.confirmed:,}, **{each.lost}** | – | – |")
    print(f"\nTaken without a confirmation and lost: {sum(each.lost_unconfirmed for each in outcomes)}.")
    print("\n| Redis | memory, MiB | CPU idle, % | to healthy, s |\n| --- | --- | --- | --- |")
    for words, (memory, processor, seconds) in (("plain pair", plain), ("pair, 3 sentinels", with_sentinels)):
        print(f"| {words} | {memory:.0f} | {processor:.1f} | {seconds:.1f} |")
    failed = any(each.lost or each.accepted or each.outage > 7 for each in outcomes) or controls[0].lost == 0
    return 1 if failed else 0


def cost(project: Project, failover: bool) -> tuple[float, float, float]:
    """Memory (MiB) and processor time (percent of one core) at rest, and seconds until everything is healthy."""
    redis.start(project, failover)
    services = (*redis.NODES, *(redis.SENTINELS if failover else ()))
    compose(project, "down", "--volumes")
    began = time.monotonic()
    redis.start(project, failover)
    seconds = time.monotonic() - began
    redis.settled(project)
    time.sleep(10)
    return *clients.load(*(container(project, service) for service in services)), seconds


if __name__ == "__main__":
    sys.exit(main())
