"""Which Redis is copied."""

from __future__ import annotations

import pytest

from ops.recovery import redis

PRIMARY = {"role": "master"}
NODES = ("redis-primary", "redis-replica")


def follower(of: str, link: str = "up") -> dict[str, str]:
    return {"role": "slave", "master_link_status": link, "master_host": of}


@pytest.mark.parametrize(
    ("one", "two", "elected", "chosen"),
    [
        (PRIMARY, follower(NODES[0]), "", NODES[1]),
        (PRIMARY, follower(NODES[0]), NODES[0], NODES[1]),
        (PRIMARY, follower(NODES[0], "down"), "", NODES[0]),
        (PRIMARY, None, "", NODES[0]),
        (follower(NODES[1]), PRIMARY, NODES[1], NODES[0]),
        # a replica that lags behind a failover, and a primary that has not heard of it
        (PRIMARY, follower(NODES[0]), NODES[1], None),
        (PRIMARY, PRIMARY, NODES[1], NODES[1]),
        (PRIMARY, PRIMARY, "", None),
        (None, None, "", None),
        (follower("x", "down"), follower("x", "down"), "", None),
        (None, PRIMARY, NODES[0], None),
    ],
)
def test_a_replica_that_follows_the_primary_is_copied(one, two, elected: str, chosen: str | None) -> None:
    seen = {node: said for node, said in zip(NODES, (one, two), strict=True) if said is not None}
    assert redis.choose(seen, elected) == chosen
