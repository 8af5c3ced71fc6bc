"""HAProxy's part of what is rendered from the Compose files: a pool for each service that takes requests."""

from __future__ import annotations

from collections.abc import Mapping

from ops.stack.pools import Pool
from ops.stack.pools import canary as alias_of_canary

# As many containers of one service as can be at once: `scale` allows 50, and a rollout has twice as many.
_SLOTS = 100

_HEAD = """\
# Rendered from the Compose files by `invoke deploy`. What they have in common: infrastructure/haproxy/haproxy.cfg.
"""
_POOL = """
backend {name} from pool
{check}{affinity}{canary}    server-template s 1-{slots} {alias}:{port}

backend {name}:any from any
{affinity}    server-template s 1-{slots} {alias}:{port}
"""
# Without it a container is ready when it takes connections.
_CHECK = """\
    option httpchk
    http-check send meth GET uri {path} ver HTTP/1.1 hdr Host haproxy
    http-check expect status 200
"""
# The value is a hash of the address, so that nothing has to be remembered.
_AFFINITY = """\
    dynamic-cookie-key {name}
    cookie {name}-container insert indirect nocache httponly secure dynamic
"""


# Of the weights 1 to 256 that HAProxy knows; shares are counted in requests, so they take their turns.
USUAL_WEIGHT = 100
_CANARY = """\
    balance roundrobin
    server-template c 1-{slots} {alias}:{port} weight {weight}
    default-server weight {usual}
"""


def render(pools: Mapping[str, Pool], canaries: Mapping[str, int] | None = None) -> str:
    """The configuration of all pools, in the order of their names. canaries: by service, the weight of a container that
    gets a share of its requests; all others weigh USUAL_WEIGHT."""
    weights = canaries or {}
    return _HEAD + "".join(_pool(each, weights.get(name, 0)) for name, each in sorted(pools.items()))


def _pool(pool: Pool, weight: int) -> str:
    canary = (
        _CANARY.format(
            usual=USUAL_WEIGHT, slots=_SLOTS, alias=alias_of_canary(pool.service), port=pool.port, weight=weight
        )
        if weight
        else ""
    )
    affinity = _AFFINITY.format(name=pool.service) if pool.affinity else ""
    return _POOL.format(
        name=pool.service,
        check=_CHECK.format(path=pool.path) if pool.path else "",
        alias=pool.alias,
        port=pool.port,
        slots=_SLOTS,
        affinity=affinity,
        canary=canary,
    )
