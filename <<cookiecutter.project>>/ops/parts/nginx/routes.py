"""nginx's part of what is rendered from the Compose files: upstreams, the paths between services, the public routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ops.stack.pools import IDLE_SECONDS, Pool

_HEAD = "# Rendered from the Compose files by `invoke deploy`.\n"

_UPSTREAM = """
upstream {name} {{
    zone service:{name} 128k;
{servers}    keepalive 32;
    keepalive_timeout {idle}s; # less than the 75 s of HAProxy and the services: nginx is the one that closes it
}}
"""
# Between services: without the prefix, and otherwise as it was sent (infrastructure/nginx/http.conf: $internal_rest)
_INTERNAL = """
location ^~ /{name}/ {{
    proxy_pass http://{name}$internal_rest;
}}
"""
_HOST = """
server {{
    include /run/nginx/http.conf;
    server_name {host};
    include /etc/nginx/stack/redirect.conf;
}}

server {{
    include /run/nginx/https.conf;
    http2 on;
    include /run/nginx/http3.conf;
    server_name {host};
    include /etc/nginx/stack/public.conf;
{locations}}}
"""
_LOCATION = """
location {match} {{
    set $pool {name};
    include /etc/nginx/stack/{kind}.conf;
    proxy_pass http://{name};
}}
"""


def through_haproxy(pool: Pool) -> tuple[str, ...]:
    """Where nginx finds a service: HAProxy knows which containers are ready and which are leaving. While it is away,
    nginx goes by the service's name."""
    return "haproxy:8100 resolve max_fails=1 fail_timeout=1s", f"{pool.alias}:{pool.port} resolve backup"


def render(declared: Mapping[str, Pool], servers: Callable[[Pool], Iterable[str]] = through_haproxy) -> dict[str, str]:
    """Files by name: http.conf for http {}, site.conf for the public server {}, internal.conf for the one between
    services, hosts.conf with a server {} for each host name that a service has of its own.

    servers: where nginx finds a service, as the parameters of `server` in an upstream.
    """
    pools = [pool for _, pool in sorted(declared.items())]
    hosts = sorted({pool.host for pool in pools if pool.host})
    return {
        "http.conf": _HEAD + "".join(_upstream(pool, servers(pool)) for pool in pools),
        "site.conf": _HEAD + _locations(pools),
        "internal.conf": _HEAD + "".join(_INTERNAL.format(name=pool.service) for pool in pools if pool.internal),
        "hosts.conf": _HEAD + "".join(_HOST.format(host=host, locations=_locations(pools, host)) for host in hosts),
    }


def _upstream(pool: Pool, servers: Iterable[str]) -> str:
    lines = "".join(f"    server {server};\n" for server in servers)
    return _UPSTREAM.format(name=pool.service, servers=lines, idle=IDLE_SECONDS)


def _locations(pools: Iterable[Pool], host: str = "") -> str:
    """The public routes of a host; "": of the domain."""
    return "".join(map(_public, (pool for pool in pools if pool.route and pool.host == host)))


def _public(pool: Pool) -> str:
    matches = [(pool.route, "route")]
    if pool.logins:
        matches.append((f"~ {pool.logins}", "logins"))
    if pool.uploads:
        matches.append((pool.uploads, "uploads"))
    return "".join(_LOCATION.format(match=match, name=pool.service, kind=kind) for match, kind in matches)
