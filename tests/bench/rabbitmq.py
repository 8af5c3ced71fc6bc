"""RabbitMQ is killed in the middle of its work: messages lost, mails sent twice, outage; and what a cluster costs.

    python -m tests.bench.rabbitmq [--kills 10] [--mails 400] [--part single|mails|cluster]

The control publishes without confirms. Needs an engine, and the images of a stack on it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.stack import clients
from tests.stack import rabbit_faults as rabbit
from tests.stack.clients import compose, container
from tests.stack.project import Project, eventually

CLUSTER = "docker-compose.rabbitmq-cluster.yml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--mails", type=int, default=400)
    parser.add_argument("--part", choices=["single", "mails", "cluster"], action="append")
    asked = parser.parse_args()
    parts = asked.part or ["single", "mails", "cluster"]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        project = Project.bake(Path(folder), project_name="Rabbit Bench")
        try:
            if "single" in parts or "cluster" in parts:
                project.invoke("secret-init")
                compose(project, "build", "api")
                print("| RabbitMQ | killed | taken | lost | longest pause, s |\n| --- | --- | --- | --- | --- |")
            if "single" in parts:
                start(project)
                ours = rabbit.publishing(project, asked.kills)
                control = rabbit.publishing(project, 2, "--unconfirmed")
                show("one node, confirms", asked.kills, ours)
                show("one node, without confirms (control)", 2, control)
                failed |= ours.lost > 0 or control.lost == 0
                compose(project, "down", "--volumes")
            if "cluster" in parts:
                single = cost(project, rabbit.NODES[:1])
                files = project.settings()["COMPOSE_FILE"]
                project.set(
                    COMPOSE_FILE=files.replace("rabbitmq.yml", f"rabbitmq.yml:{CLUSTER}"),
                    RABBITMQ_HOSTS=",".join(rabbit.NODES),
                )
                three = cost(project, rabbit.NODES)
                eventually(lambda: rabbit.copies(project) == 3, 90, "three copies of every queue")
                ours = rabbit.publishing(project, 3, victims=rabbit.NODES)
                show("three nodes, confirms, one killed at a time", 3, ours)
                failed |= ours.lost > 0
                compose(project, "down", "--volumes")
                project.set(COMPOSE_FILE=files, RABBITMQ_HOSTS="rabbitmq")
                print("\n| RabbitMQ | memory, MiB | CPU idle, % | to healthy, s |\n| --- | --- | --- | --- |")
                for words, (memory, processor, seconds) in (("one node", single), ("three nodes", three)):
                    print(f"| {words} | {memory:.0f} | {processor:.1f} | {seconds:.1f} |")
            if "mails" in parts:
                project.invoke("deploy")
                counted = rabbit.mails(project, asked.mails, 4)
                twice = sum(count > 1 for count in counted.values())
                words = f"mailed once {len(counted) - twice}, twice {twice}"
                print(f"\n{len(counted)} items made while RabbitMQ was killed 4 times: {words}.")
                failed |= twice > 0
        finally:
            project.remove()
    return 1 if failed else 0


def start(project: Project, nodes: tuple[str, ...] = rabbit.NODES[:1]) -> None:
    compose(project, "up", "--detach", "--wait", "--no-deps", *nodes)


def show(words: str, kills: int, outcome: rabbit.Outcome) -> None:
    print(f"| {words} | {kills} × | {outcome.taken:,} | **{outcome.lost}** | {outcome.outage:.1f} |", flush=True)


def cost(project: Project, nodes: tuple[str, ...]) -> tuple[float, float, float]:
    """Memory (MiB) and processor time (percent of one core) at rest, and seconds until all are healthy."""
    began = time.monotonic()
    start(project, nodes)
    seconds = time.monotonic() - began
    time.sleep(15)
    return *clients.load(*(container(project, node) for node in nodes)), seconds


if __name__ == "__main__":
    sys.exit(main())
