"""RabbitMQ: its definitions, read from the management API in the network `management`."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ops.base.errors import OpsError

# Users and permissions are made from secrets and the committed definitions; runtime parameters (shovels, federation)
# carry passwords in their addresses.
KEPT = ("vhosts", "exchanges", "queues", "bindings", "policies")

_PORT = 15672
_ANSWER_SECONDS = 60.0


def definitions(nodes: Sequence[str], user: str, password: str) -> dict[str, Any]:
    """What the broker is made of, users left out, and `rabbitmq_version`. nodes: their names; any of them answers for
    the whole cluster. Raises OpsError when none does."""
    problems = []
    for node in nodes:
        try:
            return kept(_get(node, user, password))
        except OSError as error:
            problems.append(f"{node}: {error.strerror or error}")
        except (http.client.HTTPException, ValueError) as error:
            problems.append(f"{node}: {error}")
    raise OpsError(
        f"RabbitMQ's definitions cannot be read: {'; '.join(problems)}.",
        "See: invoke health. A broker that was made by an earlier version listens there after the next deploy.",
    )


def address(node: str) -> str:
    """Where the management API of a node listens: its name in the network of that name."""
    return f"{node}.management"


def kept(document: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the API answers, what a backup keeps. Raises ValueError when it is not an answer about definitions."""
    if "rabbitmq_version" not in document:
        raise ValueError("the answer holds no definitions")
    return {"rabbitmq_version": document["rabbitmq_version"], **{key: document.get(key, []) for key in KEPT}}


def counts(text: bytes) -> dict[str, int]:
    """How many of each kind a saved document holds. Raises OpsError when it cannot be read."""
    try:
        document = json.loads(text)
        return {key: len(document[key]) for key in KEPT}
    except (ValueError, KeyError, TypeError) as error:
        raise OpsError(f"RabbitMQ's definitions cannot be read: {error}.") from error


def _get(node: str, user: str, password: str) -> Mapping[str, Any]:
    # http.client knows no proxies: the password must not go to one.
    connection = http.client.HTTPConnection(address(node), _PORT, timeout=_ANSWER_SECONDS)
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    try:
        connection.request("GET", "/api/definitions", headers={"Authorization": f"Basic {login}"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"it answers {response.status} {response.reason}")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("the answer holds no definitions")
    return document
