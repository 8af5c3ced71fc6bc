"""Any node of a cluster will do, and one that is stuck does not hold a connection up for long."""

import asyncio
import time

import aio_pika
import pytest
from pydantic import SecretStr

from stack import broker
from stack.settings import BrokerSettings


def settings(hosts: str) -> BrokerSettings:
    return BrokerSettings(rabbitmq_hosts=hosts, rabbitmq_user="api")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nodes that were asked; only `well` answers, `stuck` never does."""
    found: list[str] = []

    async def connect(url, timeout: float) -> str:
        found.append(url.host)
        if url.host == "stuck":
            await asyncio.sleep(30)
        if url.host != "well":
            raise ConnectionError(url.host)
        return "connected"

    monkeypatch.setattr(aio_pika, "connect", connect)
    return found


async def test_another_node_is_asked_when_one_is_away(asked: list[str]) -> None:
    for _ in range(8):
        assert await broker.connect(settings("away,gone:5673,well"), SecretStr("x")) == "connected"
    assert {"away", "gone", "well"} == set(asked)


async def test_each_is_asked_once_and_the_last_says_why(asked: list[str]) -> None:
    with pytest.raises(ConnectionError):
        await broker.connect(settings("a,b"), SecretStr("x"))
    assert sorted(asked) == ["a", "b"]


async def test_a_stuck_node_costs_its_time_and_no_more(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TIMEOUT", 0.1)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await broker.connect(settings("stuck"), SecretStr("x"))
    assert time.monotonic() - began < 5
