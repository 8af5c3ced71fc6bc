"""RabbitMQ connections. Reconnecting is the caller's loop: it knows what to set up again."""

import aio_pika
from aio_pika.abc import AbstractConnection
from pydantic import SecretStr
from yarl import URL

from stack.settings import BrokerSettings

# Seconds. A broker that falls silent is noticed after two missed heartbeats.
HEARTBEAT = 10
TIMEOUT = 5


async def connect(settings: BrokerSettings, password: SecretStr) -> AbstractConnection:
    """A new connection that does not repair itself.

    Raises:
        Exception: whatever went wrong, within a few seconds.
    """
    url = URL.build(
        scheme="amqp",
        user=settings.rabbitmq_user,
        password=password.get_secret_value(),
        host=settings.rabbitmq_host,
        port=settings.rabbitmq_port,
        path="//",
        query={"heartbeat": str(HEARTBEAT), "name": settings.service_name},
    )
    return await aio_pika.connect(url, timeout=TIMEOUT)
