"""What is asked: a fixed mixture in shuffled order, every write under a name of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import urlencode

from tests.load.client import Answer, Request

SLOW_SECONDS = 5


@dataclass(frozen=True)
class User:
    """Somebody who is logged in. item: one of theirs that exists."""

    email: str
    access: str
    refresh: str
    item: str

    @property
    def bearer(self) -> dict[str, str]:
        """The headers of a program."""
        return {"Authorization": f"Bearer {self.access}"}

    @property
    def cookie(self) -> dict[str, str]:
        """The headers of a browser."""
        return {"Cookie": f"__Host-access={self.access}; __Host-refresh={self.refresh}"}


@dataclass(frozen=True)
class Kind:
    """One kind of request. share: how many of 200. hops: how often it passes from one service to another.

    writes: the table that then holds the name, "" for none.
    """

    name: str
    share: int
    hops: int
    make: Callable[[User, str], Request]
    expected: Callable[[Answer], bool]
    writes: str = ""


def _ok(answer: Answer) -> bool:
    return answer.status == 200


def _created(answer: Answer) -> bool:
    return answer.status == 201


def _sent_back(answer: Answer) -> bool:
    """What a browser is answered when its form was taken; to the login page would mean that it was not."""
    return answer.status == 303 and answer.headers.get("location") == "/?done=created"


def _json(user: User, path: str, **body: str) -> Request:
    return Request("POST", path, {**user.bearer, "Content-Type": "application/json"}, json.dumps(body).encode())


def _form(user: User, path: str, **fields: str) -> Request:
    headers = {**user.cookie, "Content-Type": "application/x-www-form-urlencoded"}
    return Request("POST", path, headers, urlencode(fields).encode())


def _register(name: str) -> Request:
    account = {"email": f"{name}@example.com", "password": "five dull words do"}
    return Request("POST", "/api/v1/auth/register", {"Content-Type": "application/json"}, json.dumps(account).encode())


def _get(path: str, headers: Mapping[str, str]) -> Request:
    return Request("GET", path, headers)


# No Idempotency-Key with the writes: a request that anybody on the way repeats makes a second row, and is found out.
# What /quiet and /slow are is in tests/stack/rollouts.py.
_SLOWLY = f"seconds={SLOW_SECONDS}"
KINDS = (
    Kind("create", 14, 0, lambda user, name: _json(user, "/api/v1/items", title=name), _created, "items"),
    Kind("create by page", 6, 1, lambda user, name: _form(user, "/items", title=name), _sent_back, "items"),
    Kind("create quietly", 51, 0, lambda user, name: _json(user, "/api/v1/quiet", title=name), _created, "items"),
    Kind("create quietly by page", 26, 1, lambda user, name: _form(user, "/quiet", title=name), _sent_back, "items"),
    Kind(
        "create slowly", 1, 0, lambda user, name: _json(user, f"/api/v1/quiet?{_SLOWLY}", title=name), _created, "items"
    ),
    Kind("register", 2, 1, lambda _, name: _register(name), _created, "users"),
    Kind("read", 61, 0, lambda user, _: _get(f"/api/v1/items/{user.item}", user.bearer), _ok),
    Kind("who am I", 30, 1, lambda user, _: _get("/api/v1/auth/me", user.bearer), _ok),
    Kind("page", 8, 1, lambda user, _: _get("/", user.cookie), _ok),
    Kind("slow page", 1, 1, lambda user, _: _get(f"/slow?{_SLOWLY}", user.cookie), _ok),
)

# What one service answers by itself, so that nothing behind it counts (the page: tests/bench/edge_parts/fronts.py).
PROBES = (
    Kind("probe", 100, 0, lambda _, __: _get("/probe", {}), _ok),
    Kind("probe by POST", 100, 0, lambda _, __: Request("POST", "/probe", {}), _ok),
)
# What a project answers as it was baked, without the pages that tests add.
_QUIETLY = ("create quietly", "create quietly by page", "create slowly", "slow page")
PLAIN = tuple(
    replace(kind, share=kind.share * 4) if kind.name.startswith("create") else kind
    for kind in KINDS
    if kind.name not in _QUIETLY
)
MIXTURES = {"stack": KINDS, "plain": PLAIN, "probes": PROBES}


class Turn(NamedTuple):
    """The next request to send, and over which of the connections."""

    kind: Kind
    name: str
    transport: str
    request: Request


def turns(
    users: list[User], run: str, transports: list[str], seed: int = 1, kinds: Sequence[Kind] = KINDS
) -> Iterator[Turn]:
    """Requests without end: in every 200 per transport each kind has its share, in an order that only `seed` decides.

    run: what the names begin with.
    """
    chance = random.Random(seed)
    block = [(kind, transport) for transport in transports for kind in kinds for _ in range(kind.share)]
    number = 0
    while True:
        chance.shuffle(block)
        for kind, transport in block:
            name = f"{run}-{number}"
            yield Turn(kind, name, transport, kind.make(users[number % len(users)], name))
            number += 1
