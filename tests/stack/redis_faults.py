"""What happens to Redis' writers when its primary goes: faults, and what became of the writes."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field

from . import clients
from .clients import container
from .project import Project, docker, eventually

NODES = ("redis-primary", "redis-replica")
SENTINELS = ("redis-sentinel-1", "redis-sentinel-2", "redis-sentinel-3")
FAULTS = ("kill", "crash", "pause", "cut")


@dataclass
class Outcome:
    """One fault: seconds, counts, and how the old primary answered writes when it was back."""

    fault: str
    outage: float = 0.0
    taken: int = 0
    confirmed: int = 0
    lost: int = 0  # of the confirmed ones
    lost_unconfirmed: int = 0
    rejoined: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """Writes that the old primary took after it was back."""
        return self.answers.get("accepted", 0)


def start(project: Project, failover: bool = True) -> None:
    """Redis alone of a baked project, healthy."""
    if failover and "failover" not in project.settings()["COMPOSE_FILE"]:
        files = project.settings()["COMPOSE_FILE"]
        project.set(
            COMPOSE_FILE=files.replace("redis.yml", "redis.yml:docker-compose.redis-failover.yml"),
            REDIS_SENTINELS=",".join(f"{name}:26379" for name in SENTINELS),
        )
    project.invoke("secret-init")
    clients.compose(project, "build", "api")
    clients.compose(project, "up", "--detach", "--wait", "--no-deps", *NODES, *(SENTINELS if failover else ()))
    if failover:
        eventually(lambda: quorum(project), 30, "three sentinels that know each other")


def inside(project: Project, service: str, script: str) -> str:
    """What a shell script prints in a container; empty when it fails."""
    return docker("exec", container(project, service), "sh", "-c", script, check=False)


def quorum(project: Project) -> bool:
    return all("OK 3" in inside(project, each, "sh /etc/redis/cli.sh sentinel ckquorum stack") for each in SENTINELS)


def role(project: Project, node: str) -> str:
    """`primary`, `replica` when its link is up, or nothing."""
    state = inside(project, node, "sh /etc/redis/cli.sh info replication")
    if "role:master" in state:
        return "primary"
    return "replica" if "master_link_status:up" in state else ""


def settled(project: Project) -> tuple[str, str]:
    """(primary, replica), once there is one of each and the replica is online."""

    def look() -> tuple[str, str] | None:
        roles = {role(project, node): node for node in NODES}
        if roles.keys() != {"primary", "replica"}:
            return None
        return roles["primary"], roles["replica"]

    return eventually(look, 60, "a primary and a replica")


def strike(project: Project, fault: str, node: str) -> None:
    name = container(project, node)
    if fault == "kill":
        docker("kill", name)
    elif fault == "crash":
        # Not by the engine, so that the restart policy brings it back.
        pid = docker("inspect", "--format", "{{.State.Pid}}", name)
        subprocess.run(["kill", "-9", pid], check=True)
    elif fault == "pause":
        docker("pause", name)
    else:
        docker("network", "disconnect", f"{project.name()}_database", name)


def relieve(project: Project, fault: str, node: str) -> None:
    name = container(project, node)
    if fault == "kill":
        docker("start", name)
    elif fault == "pause":
        docker("unpause", name)
    elif fault == "cut":
        docker("network", "connect", "--alias", node, f"{project.name()}_database", name)


def endure(project: Project, fault: str, seconds: float = 8) -> Outcome:
    """Let the primary fail for some seconds under a writer that waits for the replica, bring it back, and count."""
    old, other = settled(project)
    with clients.running(project, "redis_client.py", "write", "--confirm") as writer:
        time.sleep(2)
        strike(project, fault, old)
        time.sleep(seconds)
        with clients.running(project, "redis_client.py", "probe", "--host", old) as prober:
            time.sleep(1)
            began = time.monotonic()
            relieve(project, fault, old)
            eventually(lambda: role(project, old) == "replica" and role(project, other) == "primary", 60, "its return")
            outcome = Outcome(fault, rejoined=time.monotonic() - began)
            outcome.answers = json.loads(prober.end())
        time.sleep(1)
        lines = [line.split() for line in writer.end().splitlines()]
    _judge(outcome, lines, set(json.loads(clients.once(project, "redis_client.py", "read"))))
    forget(project)
    return outcome


def alone(project: Project, confirm: bool, seconds: float = 8) -> Outcome:
    """Cut the primary off together with a writer at its side, which goes on writing to it."""
    old, _ = settled(project)
    arguments = ("write", "--host", "127.0.0.1", *(("--confirm",) if confirm else ()))
    network = f"container:{container(project, old)}"
    with clients.running(project, "redis_client.py", *arguments, network=network) as writer:
        time.sleep(2)
        strike(project, "cut", old)
        time.sleep(seconds)
        lines = [line.split() for line in writer.end().splitlines()]
    relieve(project, "cut", old)
    eventually(lambda: role(project, old) == "replica", 60, "the return of the old primary")
    outcome = Outcome("cut, the writer at its side")
    _judge(outcome, lines, set(json.loads(clients.once(project, "redis_client.py", "read"))))
    if not confirm:
        # Without WAIT whatever was answered counts as acknowledged.
        outcome.confirmed, outcome.lost = outcome.taken, outcome.lost_unconfirmed
    forget(project)
    return outcome


def _judge(outcome: Outcome, lines: list[list[str]], found: set[int]) -> None:
    taken = [(int(number), float(when), int(confirmed)) for number, when, confirmed in lines]
    times = [when for _, when, _ in taken]
    outcome.outage = max((after - before for before, after in zip(times, times[1:], strict=False)), default=0.0)
    outcome.taken = len(taken)
    confirmed = {number for number, _, replicas in taken if replicas >= 1}
    outcome.confirmed, outcome.lost = len(confirmed), len(confirmed - found)
    outcome.lost_unconfirmed = len({number for number, _, replicas in taken if replicas < 1} - found)


def forget(project: Project) -> None:
    """Remove what the writers wrote."""
    primary, _ = settled(project)
    inside(project, primary, "sh /etc/redis/cli.sh flushall")
