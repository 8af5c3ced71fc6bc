"""How requests reach the services: nginx in front, as on one host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ops.parts import routes
from ops.parts.nginx import edge
from ops.parts.nginx import routes as nginx
from ops.stack.pools import Pool

# How the world reaches nginx: KUBERNETES_EDGE, and the type of its Service.
NODE_PORT, LOAD_BALANCER, GATEWAY = "nodeport", "loadbalancer", "gateway"
KINDS = {NODE_PORT: "NodePort", LOAD_BALANCER: "LoadBalancer", GATEWAY: "ClusterIP"}


def rendered(pools: Mapping[str, Pool], namespace: str, domain: str) -> dict[str, dict[str, str]]:
    """What the volume `edge` holds on one host, by the service that reads it. domain: of the cluster.

    nginx goes to the Services directly: they send requests to pods that are ready, which HAProxy does on one host. The
    names are full ones, for nginx knows no search list; they are looked up again and again, so it starts before any
    service is there.
    """

    def servers(pool: Pool) -> Iterable[str]:
        return (f"{pool.service}.{namespace}.svc.{domain}:{pool.port} resolve max_fails=0",)

    reader = routes.READERS[edge.SERVICE]
    return {edge.SERVICE: reader.of(nginx.render(pools, servers))}
