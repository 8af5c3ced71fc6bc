"""The entry to the edge by the Gateway API, where the cluster has an implementation of it.

The Gateway passes connections on, and nginx stays the edge: it ends TLS, sets headers, keeps limits and sends requests
to the services, as on one host. So nothing of the site depends on which implementation a cluster has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ops.kubernetes.values import Manifest, made

_ROUTES = {"HTTP": "HTTPRoute", "TLS": "TLSRoute"}


def of(
    service: str, component: str, ports: Sequence[Mapping[str, Any]], tls: str, class_name: str, hosts: Sequence[str]
) -> Iterator[Manifest]:
    """A Gateway, and a route for each public port of a service.

    ports: published ones, of the Compose files; tls: the one that takes TLS, which is passed on as it is; class_name:
    of the Gateway; hosts: the names of the site.
    """
    protocols = {str(each["published"]): "TLS" if str(each["published"]) == tls else "HTTP" for each in ports}
    listeners = [
        {
            "name": f"port-{number}",
            "port": int(number),
            "protocol": protocol,
            "allowedRoutes": {"namespaces": {"from": "Same"}},
            **({"tls": {"mode": "Passthrough"}} if protocol == "TLS" else {}),
        }
        for number, protocol in protocols.items()
    ]
    spec = {"gatewayClassName": class_name, "listeners": listeners}
    yield made("Gateway", service, service, component, spec=spec)
    for number, protocol in protocols.items():
        backend = {"name": f"{service}-public", "port": int(number)}
        route = {
            "parentRefs": [{"name": service, "sectionName": f"port-{number}"}],
            "hostnames": list(hosts),
            "rules": [{"backendRefs": [backend]}],
        }
        yield made(_ROUTES[protocol], f"{service}-{number}", service, component, spec=route)
