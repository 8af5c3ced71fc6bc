"""nginx's part of what is rendered from the Compose files: upstreams, the names between services, the public routes."""

from __future__ import annotations

from collections.abc import Mapping

from ops.stack.pools import IDLE_SECONDS, Pool

_HEAD = "# Rendered from the Compose files by `invoke deploy`.\n"

# HAProxy knows which containers are ready and which are leaving. While it is away, nginx goes by the service's name.
_UPSTREAM = """
upstream {name} {{
    zone {name} 128k;
    server haproxy:8100 resolve max_fails=1 fail_timeout=1s;
    server {alias}:{port} resolve backup;
    keepalive 32;
    keepalive_timeout {idle}s; # less than the 75 s of HAProxy and the services: nginx is the one that closes it
}}
"""
_INTERNAL = """
server {{
    listen 8081;
    server_name {internal};
    include /etc/nginx/stack/proxy.conf;
    include /etc/nginx/stack/hop.conf;
    client_max_body_size 0; # the public door has limited it already

    location / {{
        proxy_pass http://{name};
    }}
}}
"""
_LOCATION = """
location {match} {{
    set $pool {name};
    include /etc/nginx/stack/{kind}.conf;
    proxy_pass http://{name};
}}
"""


def render(declared: Mapping[str, Pool]) -> dict[str, str]:
    """Files by name: http.conf for http {}, site.conf for the public server {}."""
    http = "".join(_http(pool) for _, pool in sorted(declared.items()))
    site = "".join(_site(pool) for _, pool in sorted(declared.items()) if pool.route)
    return {"http.conf": _HEAD + http, "site.conf": _HEAD + site}


def _http(pool: Pool) -> str:
    upstream = _UPSTREAM.format(name=pool.service, alias=pool.alias, port=pool.port, idle=IDLE_SECONDS)
    return upstream + (_INTERNAL.format(name=pool.service, internal=pool.internal) if pool.internal else "")


def _site(pool: Pool) -> str:
    matches = [(pool.route, "route")]
    if pool.logins:
        matches.append((f"~ {pool.logins}", "logins"))
    if pool.uploads:
        matches.append((pool.uploads, "uploads"))
    return "".join(_LOCATION.format(match=match, name=pool.service, kind=kind) for match, kind in matches)
