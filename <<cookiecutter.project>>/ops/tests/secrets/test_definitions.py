"""RabbitMQ's definitions."""

import base64
import hashlib
import json

import pytest

from ops.base.errors import OpsError
from ops.secrets import definitions, files, make


def source_of(env):
    return json.loads((env.project_dir / definitions.SOURCE).read_text())


def test_the_hash_is_rabbitmqs():
    # From RabbitMQ's documentation: salt 908D C60A, password test12.
    assert (
        definitions.rabbitmq_hash("test12", bytes.fromhex("908DC60A"))
        == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )


def test_definitions_hold_hashes_only(made):
    text = (made.secrets_dir / definitions.FILE).read_text()
    document = json.loads(text)
    assert document["queues"] == source_of(made)["queues"]
    for user, name in zip(document["users"], ("RABBITMQ_PASSWORD", "RABBITMQ_COOKIE"), strict=True):
        raw = base64.b64decode(user["password_hash"])
        password = files.read(made, name)
        assert raw[4:] == hashlib.sha256(raw[:4] + password.encode()).digest()
        assert user["hashing_algorithm"] == "rabbit_password_hashing_sha256"
        assert "password_secret" not in user
        assert password not in text


def test_definitions_change_only_for_what_changed(made):
    path = made.secrets_dir / definitions.FILE
    before = json.loads(path.read_text())["users"]
    files.replace_file(made.secrets_dir / "RABBITMQ_COOKIE", b"another-" * 5)
    assert make.init(made, None) == [definitions.FILE]
    after = json.loads(path.read_text())["users"]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_definitions_follow_their_source(made):
    source = made.project_dir / definitions.SOURCE
    source.write_text(json.dumps({**source_of(made), "queues": []}))
    assert make.init(made, None) == [definitions.FILE]
    assert make.init(made, None) == []


def test_damaged_definitions_are_made_again(made):
    path = made.secrets_dir / definitions.FILE
    files.replace_file(path, b'{"users": [{"name": "api", "password_hash": "!"}]}')
    assert make.init(made, None) == [definitions.FILE]
    assert len(json.loads(path.read_text())["users"]) == 2


@pytest.mark.parametrize("source", ["{", '{"users": [{"name": "x", "password_secret": "NO_SUCH"}]}'])
def test_a_broken_source_is_a_clear_error(made, source):
    (made.project_dir / definitions.SOURCE).write_text(source)
    with pytest.raises(OpsError, match=r"definitions\.json"):
        make.init(made, None)
