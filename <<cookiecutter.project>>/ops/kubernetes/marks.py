"""The labels by which the objects of an environment are found again."""

from __future__ import annotations

from ops.base.environments import Environment
from ops.engine.kubectl import Object

SERVICE = "app.kubernetes.io/name"
# Its value is the namespace.
PART_OF = "app.kubernetes.io/part-of"
# On pods of what `invoke run` starts: they are beside the replicas, and none of them. Its value: the service.
ONE_OFF = "stack/one-off"
# How labels begin that say in which networks a pod is.
NETWORK = "network.stack"
# Who started one, as an annotation.
BY = "stack/by"
# On pods: which members of the data tier make up one cluster, of which one at a time may be away.
FAMILY = "cluster.stack/member-of"


def labels(object: Object) -> dict[str, str]:
    """The labels of an object."""
    return dict(object["metadata"].get("labels") or {})


def service(object: Object) -> str:
    """The service that an object belongs to; "" for what belongs to none."""
    return labels(object).get(SERVICE, "")


def selector(env: Environment) -> str:
    """What selects the objects of an environment."""
    return f"{PART_OF}={env.namespace}"
