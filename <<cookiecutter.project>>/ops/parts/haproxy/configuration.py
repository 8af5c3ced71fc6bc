"""HAProxy's part of what is rendered from the Compose files: a pool for each service that takes requests."""

from __future__ import annotations

from collections.abc import Mapping

from ops.stack.pools import Pool

# As many containers of one service as can be at once: `scale` allows 50, and a rollout has twice as many.
_SLOTS = 100

_HEAD = """\
# Rendered from the Compose files by `invoke deploy`. What they have in common: infrastructure/haproxy/haproxy.cfg.
"""
_POOL = """
backend {name} from pool
    http-check send meth GET uri {ready} ver HTTP/1.1 hdr Host haproxy
    http-check expect status 200
{affinity}    server-template s 1-{slots} {alias}:{port}

backend {name}:any from any
{affinity}    server-template s 1-{slots} {alias}:{port}
"""
# The value is a hash of the address, so that nothing has to be remembered.
_AFFINITY = """\
    dynamic-cookie-key {name}
    cookie {name}-container insert indirect nocache httponly secure dynamic
"""


def render(pools: Mapping[str, Pool]) -> str:
    """The configuration of all pools, in the order of their names."""
    return _HEAD + "".join(_pool(each) for _, each in sorted(pools.items()))


def _pool(pool: Pool) -> str:
    affinity = _AFFINITY.format(name=pool.service) if pool.affinity else ""
    return _POOL.format(
        name=pool.service, ready=pool.ready, alias=pool.alias, port=pool.port, slots=_SLOTS, affinity=affinity
    )
