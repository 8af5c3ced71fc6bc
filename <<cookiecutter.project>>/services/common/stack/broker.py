"""RabbitMQ connections. The caller reconnects: it knows what to set up again."""

import random

import aio_pika
from aio_pika.abc import AbstractConnection
from pydantic import SecretStr
from yarl import URL

from stack import log
from stack.settings import BrokerSettings, hosts_of
from stack.waiting import within

# Seconds. A broker that falls silent is noticed after two missed heartbeats.
HEARTBEAT = 10
TIMEOUT = 5


async def connect(settings: BrokerSettings, password: SecretStr) -> AbstractConnection:
    """A new connection to any node that answers. It does not reconnect by itself.

    Raises:
        Exception: what went wrong at the last node, within a few seconds a node.
    """
    nodes = hosts_of(settings.rabbitmq_hosts, 5672)
    # Any order: clients spread over the nodes, and do not all wait for the same silent one.
    random.shuffle(nodes)
    for left, (host, port) in zip(range(len(nodes) - 1, -1, -1), nodes, strict=True):
        url = URL.build(
            scheme="amqp",
            user=settings.rabbitmq_user,
            password=password.get_secret_value(),
            host=host,
            port=port,
            path="//",
            query={"heartbeat": str(HEARTBEAT), "name": settings.service_name},
        )
        try:
            # The library's own limit is for the TCP connection only; a node that is stuck accepts one and says nothing.
            return await within(TIMEOUT, aio_pika.connect(url, timeout=TIMEOUT))
        except Exception as error:
            if not left:
                raise
            log.get().info("broker node is unreachable", node=host, error=repr(error))
    raise ValueError("RABBITMQ_HOSTS names no node")
