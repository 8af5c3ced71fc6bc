"""The lock on the engine: how often exactly one has it, and how soon it is free when its holder is killed.

    python -m tests.bench.locks [--rounds 100] [--deploys 100] [--seed 1]

Rounds are of processes that hold the lock until the others were refused; deploys are rounds of real ones that change
something. Needs an engine, and the images of a stack on it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from tests.stack import locks
from tests.stack.project import Project

KILLS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--deploys", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the number of contenders in each round")
    asked = parser.parse_args()
    rounds = asked.rounds
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        project = Project.bake(Path(folder), project_name="Lock Stack", organisation="Lock")
        try:
            played = [locks.simultaneous(project, chance.randint(2, 8)) for _ in range(rounds)]
            freed = []
            for _ in range(KILLS):
                holder = locks.holding(project)
                os.kill(holder.pid, signal.SIGKILL)
                freed.append(locks.seconds_until_free(project))
                holder.wait()
            deploys = [deploy_at_once(project, number, chance.randint(2, 8)) for number in range(asked.deploys)]
        finally:
            project.remove()
    print(f"`python -m tests.bench.locks --rounds {rounds} --deploys {asked.deploys} --seed {asked.seed}`\n")
    print("| 2 to 8 at once | rounds | contenders | exactly one ran, the others were refused |")
    print("| --- | --- | --- | --- |")
    for what, some in (("holders of the lock", played), ("`invoke deploy`", deploys)):
        contenders, fair = sum(len(each.codes) for each in some), sum(each.fair for each in some)
        print(f"| {what} | {len(some)} | {contenders} | {fair} of {len(some)} |")
    print(
        f"\nFree after SIGKILL of its holder ({KILLS} times): median {statistics.median(freed):.2f} s,"
        f" longest {max(freed):.2f} s."
    )
    for each in (*played, *deploys):
        if not each.fair:
            print(f"\nNot fair: exit codes {each.codes}")
    return 0 if all(each.fair for each in (*played, *deploys)) else 1


def deploy_at_once(project: Project, number: int, count: int) -> locks.Round:
    """Several deploys of the same change at the same moment: one service is rolled out, which lasts ten seconds."""
    if number == 0:
        project.set(DRAIN_SECONDS="0", ROLLOUT_STEADY_SECONDS="5")
        project.invoke("deploy")
    project.set(MAIL_FROM=f"round{number}@example.com")
    return locks.simultaneous_deploys(project, count)


if __name__ == "__main__":
    sys.exit(main())
