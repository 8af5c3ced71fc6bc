"""What nginx's settings must be. Its start script refuses anything else, but then the old container is gone already."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

_WANTED = {
    "DOMAIN": (r"[A-Za-z0-9.-]+", "a host name"),
    "UPLOAD_MAX_MB": (r"[0-9]{1,5}", "a whole number of megabytes"),
    "NGINX_CPUS": (r"[0-9]*(\.[0-9]+)?", "a number of processors"),
    "PROXY_PROTOCOL": (r"(on)?", "on, or empty"),
}


def problems(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Settings that nginx would not start with, each with what is wrong with it."""
    for key, (pattern, wanted) in _WANTED.items():
        if (value := values.get(key)) and not re.fullmatch(pattern, value):
            yield key, f'must be {wanted}, not "{value}"'
    proxies = values.get("TRUSTED_PROXIES", "").replace(",", " ").split()
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            yield "TRUSTED_PROXIES", f'must be addresses or networks (203.0.113.7 10.0.0.0/8), not "{proxy}"'
    if values.get("PROXY_PROTOCOL") and not proxies:
        yield "TRUSTED_PROXIES", "is empty; with PROXY_PROTOCOL it must name the load balancers"
