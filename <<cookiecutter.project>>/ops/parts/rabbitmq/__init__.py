"""RabbitMQ: its nodes, and how to ask one of them.

One node, or, with docker-compose.rabbitmq-cluster.yml, three that are equals: whoever needs the broker asks any that
runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import OpsError
from ops.engine import Container

NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
# api.sh gives up after 60 s; the rest is for a busy machine to start it.
_ANSWER_SECONDS = 120.0


def running(containers: Sequence[Container]) -> list[Container]:
    """The nodes that run, those that are well first."""
    found = [each for each in containers if each.service in NODES and each.running]
    return sorted(found, key=lambda each: (not each.ready, NODES.index(each.service)))


def node(env: Environment, containers: Sequence[Container]) -> Container:
    """A node that runs. Raises OpsError when none does."""
    if found := running(containers):
        return found[0]
    raise OpsError(f"rabbitmq is not running in {env.name}.", f"invoke deploy --env {env.name}")


def api(broker: Container, method: str, path: str, body: str = "") -> str:
    """What RabbitMQ's management API answers. Raises OpsError."""
    argv = ["bash", "/etc/rabbitmq/api.sh", method, path, *([str(len(body.encode()))] if body else [])]
    done = engine.exec_(broker.id, argv, input=body or None, check=False, timeout=_ANSWER_SECONDS)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"RabbitMQ: {engine.reason(done.stderr or done.stdout)}")
    if method == "GET" and not done.stdout.strip():
        # `docker exec` that somebody ends says nothing, and exits with 0.
        raise OpsError("RabbitMQ: no answer.", "Run the same command again.")
    return done.stdout
