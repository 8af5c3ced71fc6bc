"""The catalogue of secrets is complete and consistent."""

import re

import pytest

from ops.rollout import notify
from ops.secrets import strength
from ops.secrets.catalogue import ALPHABET, BY_NAME, CATALOGUE


def test_the_secrets_everybody_relies_on_are_there():
    required = {
        "POSTGRES_PASSWORD",
        "REPLICATION_PASSWORD",
        "REDIS_PASSWORD",
        "RABBITMQ_PASSWORD",
        "PATRONI_PASSWORD",
        "GRAFANA_PASSWORD",
        "ELASTIC_PASSWORD",
    }
    assert required <= BY_NAME.keys()
    assert not any(BY_NAME[name].optional for name in required)


def test_names_are_unique():
    assert len(BY_NAME) == len(CATALOGUE)


@pytest.mark.parametrize("secret", CATALOGUE, ids=lambda secret: secret.name)
def test_every_secret_is_described(secret):
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", secret.name)
    assert secret.purpose and secret.rotation and secret.made
    # One that no container reads is for the commands themselves.
    assert secret.readers or secret.name == notify.SECRET
    assert secret.length or secret.optional, "what cannot be generated must be allowed to be empty"


@pytest.mark.parametrize("secret", [each for each in CATALOGUE if each.length], ids=lambda secret: secret.name)
def test_what_is_generated_is_far_stronger_than_what_is_asked(secret):
    assert secret.length > secret.minimum_length
    assert strength.estimated_bits(ALPHABET) > 0
    assert secret.length * 6 > 2 * secret.minimum_bits


def test_the_alphabet_needs_no_quoting_anywhere():
    assert re.fullmatch(r"[A-Za-z0-9_-]{64}", ALPHABET)
    assert len(set(ALPHABET)) == 64
