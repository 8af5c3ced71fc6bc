"""What happens to RabbitMQ's publishers, and to mails, when a node is killed."""

from __future__ import annotations

import collections
import json
import time
from dataclasses import dataclass

from . import clients
from .clients import container
from .project import Project, docker, eventually

NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")


@dataclass
class Outcome:
    """Messages that count as taken, those that were not found of them, and the longest pause between two, seconds."""

    taken: int
    lost: int
    outage: float


def healthy(project: Project, node: str) -> bool:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container(project, node)) == "healthy"


def kill(project: Project, node: str, away: float = 1) -> None:
    """Kill a node in the middle of its work, and start it again."""
    docker("kill", container(project, node))
    time.sleep(away)
    docker("start", container(project, node))
    eventually(lambda: healthy(project, node), 120, f"{node} is back")


def publishing(project: Project, kills: int, *arguments: str, victims: tuple[str, ...] = NODES[:1]) -> Outcome:
    """Publish while nodes are killed in turn, then see what is there."""
    nodes = ("--nodes", ",".join(victims))
    with clients.running(project, "rabbit_client.py", "publish", *nodes, *arguments) as publisher:
        time.sleep(4)
        for number in range(kills):
            kill(project, victims[number % len(victims)])
            time.sleep(4)
        lines = [line.split() for line in publisher.end().splitlines()]
    found = set(json.loads(clients.once(project, "rabbit_client.py", "drain", *nodes)))
    times = [float(when) for _, when in lines]
    pauses = (after - before for before, after in zip(times, times[1:], strict=False))
    return Outcome(len(lines), len({int(number) for number, _ in lines} - found), max(pauses, default=0.0))


def copies(project: Project) -> int:
    """How many nodes hold a copy of the queue that has the fewest."""
    for node in NODES:
        asking = "bash /etc/rabbitmq/api.sh GET '/api/queues?columns=name,members' </dev/null"
        answer = docker("exec", container(project, node), "bash", "-c", asking, check=False)
        if answer:
            return min(len(queue.get("members", ())) for queue in json.loads(answer))
    return 0


def mails(project: Project, items: int, kills: int) -> collections.Counter[str]:
    """Create items over HTTP while the broker is killed; how often each of them was mailed, by title."""
    titles = [f"item {number} of {time.time():.0f}" for number in range(items)]
    counted: collections.Counter[str] = collections.Counter(dict.fromkeys(titles, 0))

    def look() -> bool:
        subjects = [mail["Subject"] for mail in project.mails()]
        counted.update(
            {title: sum(subject.endswith(title) for subject in subjects) - counted[title] for title in titles}
        )
        return all(counted.values())

    with project.client() as client:
        project.sign_in(client, "mails@example.com")
        every = items // (kills + 1)
        for number, title in enumerate(titles, 1):
            client.post("/api/v1/items", json={"title": title}).raise_for_status()
            if number % every == 0 and number < items:
                docker("kill", container(project, "rabbitmq"))
                time.sleep(1)
                docker("start", container(project, "rabbitmq"))
    eventually(look, 120, "every item was mailed")
    time.sleep(8)  # a second one would come with the first retry, after 5 s
    look()
    return counted
