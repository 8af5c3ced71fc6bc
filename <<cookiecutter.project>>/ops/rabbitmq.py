"""RabbitMQ: its nodes, and how to ask one of them.

One node, or, with docker-compose.rabbitmq-cluster.yml, three that are equals: whoever needs the broker asks any that
runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from ops import engine
from ops.engine import Container
from ops.environments import Environment
from ops.errors import OpsError

NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")


def running(containers: Sequence[Container]) -> list[Container]:
    """The nodes that run, those that are well first."""
    found = [each for each in containers if each.service in NODES and each.running]
    return sorted(found, key=lambda each: (not each.ready, NODES.index(each.service)))


def node(env: Environment, containers: Sequence[Container]) -> Container:
    """A node that runs. Raises OpsError when none does."""
    if found := running(containers):
        return found[0]
    raise OpsError(f"rabbitmq is not running in {env.name}.", f"invoke deploy --env {env.name}")


# HTTP by hand, because rabbitmqctl starts an Erlang machine and wants a name that resolves. Arguments: method, path.
_MANAGEMENT = r"""
set -euo pipefail
export LC_ALL=C
login=$(printf '%s:%s' "$MANAGEMENT_USER" "$(</run/secrets/RABBITMQ_PASSWORD)" | base64 --wrap=0)
body=$(cat)
exec 3<>/dev/tcp/127.0.0.1/15672
printf '%s %s HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic %s\r\n' "$1" "$2" "$login" >&3
printf 'Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "${#body}" "$body" >&3
answer=$(timeout 60 cat <&3)
status=${answer%%$'\r\n'*}
if [[ $status != *' 20'[0-9]* ]]; then
    echo "error: $1 $2: ${status:-no answer}: ${answer##*$'\r\n'}" >&2
    exit 1
fi
printf '%s\n' "${answer#*$'\r\n\r\n'}"
"""


def api(broker: Container, method: str, path: str, body: str = "") -> str:
    """What RabbitMQ's management API answers. Raises OpsError."""
    done = engine.exec_(
        broker.id, ["bash", "-c", _MANAGEMENT, "bash", method, path], input=body, check=False, timeout=None
    )
    if not done.ok:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise engine.explain(done.stderr) or OpsError(f"RabbitMQ: {said[-1] if said else 'it gave no reason'}")
    return done.stdout
