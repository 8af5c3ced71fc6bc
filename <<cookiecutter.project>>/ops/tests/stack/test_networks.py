"""Networks that are declared otherwise than they exist."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base.errors import REFUSED, OpsError
from ops.stack import networks
from ops.stack.model import Stack

# As Compose 2.40 made and labelled them.
BACKEND = {
    "name": "acme-dev_backend",
    "driver_opts": {"com.docker.network.driver.mtu": "1400"},
    "ipam": {},
    "labels": {"b": "<&>", "l": "1"},
}
INTERNAL = {"name": "nettry_m", "ipam": {}, "internal": True}
INTERNAL_HASH = "f0f30d439a1a42a64a35a6e021f82b85a5b5b4c227e2c14ee15146315807fd75"


def made(network: dict, digest: str) -> dict:
    return {"Name": network["name"], "Labels": {"com.docker.compose.config-hash": digest}}


def test_the_hash_is_that_of_compose() -> None:
    assert networks.digest(INTERNAL) == INTERNAL_HASH
    named = {**BACKEND, "name": "nettry_n"}
    assert networks.digest(named) == "4d904e3979d517f31059cc7cca631d985deb1e15171e190acc111e5e0ade1611"


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ([], {}),
        ([made(BACKEND, networks.digest(BACKEND))], {}),
        ([made(BACKEND, "another")], {"backend": "acme-dev_backend"}),
        ([{"Name": "acme-dev_backend", "Labels": None}], {}),
        ([made({"name": "acme-dev_gone"}, "another")], {}),
    ],
)
def test_what_differs(existing: list[dict], expected: dict) -> None:
    assert networks.differing({"backend": BACKEND}, existing) == expected


@pytest.fixture
def declared() -> Stack:
    """A stack with one network."""
    return Stack("acme-dev", {}, {"networks": {"backend": BACKEND}})


@pytest.mark.parametrize(
    ("digest", "code", "said", "refused"),
    [
        (networks.digest(BACKEND), 0, "", False),
        ("another", 0, " DRY-RUN MODE -  Container acme-dev-web-1  Running\n", False),
        ("another", 0, " DRY-RUN MODE -  Network acme-dev_backend  Removed\n", True),
        ("another", 1, "No such image: acme/web:dev", True),
    ],
)
def test_compose_has_the_last_word(env, declared, monkeypatch, digest: str, code: int, said: str, refused) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "docker", lambda *args: engine.Completed(args, 0, "id\n", ""))
    monkeypatch.setattr(engine, "inspect", lambda _ids, _kind: [made(BACKEND, digest)])

    def compose(_env, *args: str, **_options) -> engine.Completed:
        asked.append(args)
        return engine.Completed(args, code, "", said)

    monkeypatch.setattr(engine, "compose", compose)
    if not refused:
        networks.refuse(env, declared)
        assert len(asked) == (digest == "another")
        return
    with pytest.raises(OpsError, match="dev declares network backend otherwise than it exists") as caught:
        networks.refuse(env, declared)
    assert caught.value.code == REFUSED
    assert "--dry-run" in asked[0]
