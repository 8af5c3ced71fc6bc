"""Estimates of strength: what everybody knows is found, what is generated passes."""

import random

import pytest

from ops.secrets import strength
from ops.secrets.catalogue import ALPHABET


@pytest.mark.parametrize(
    "value",
    [
        "changeme",
        "admin",
        "password",
        "P@ssw0rd!",
        "secure_db_password",
        "secure_repl_password",
        "secure_redis_password",
        "secure_rabbitmq_password",
        "super_secure_jwt_secret",
        "super_secret_jwt_secret",
        "secure_grafana_password",
        "your-secret-key-here",
        "CHANGE_ME_PLEASE",
        "letmein123",
        "xxxxxxxx",
        "acme-prod-password-2026",
        "<password>",
    ],
)
def test_what_everybody_knows(value):
    assert strength.well_known(value, "acme")


@pytest.mark.parametrize("value", ["correct-horse-battery-staple", "8f14e45fceea167a5a36dedd4bea2543", "hunter2"])
def test_what_not_everybody_knows(value):
    assert not strength.well_known(value, "acme")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "a" * 60,
        "abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlkjihgfedcba",
        "qwertyuiopasdfghjklzxcvbnm",
        "01234567890123456789012345678901",
        "0123456789abcdef0123456789abcdef",
        "ab" * 30,
        "secretsecretsecretsecretsecret",
    ],
)
def test_repetition_and_sequences_count_for_little(value):
    assert strength.estimated_bits(value) < 30


def test_what_is_generated_passes_with_a_margin():
    chance = random.Random(1)
    values = ["".join(chance.choice(ALPHABET) for _ in range(43)) for _ in range(2000)]
    assert min(map(strength.estimated_bits, values)) > 128
    assert not any(strength.well_known(value) for value in values)


def test_more_characters_of_the_same_kind_are_stronger():
    chance = random.Random(2)
    value = "".join(chance.choice(ALPHABET) for _ in range(64))
    assert strength.estimated_bits(value[:16]) < strength.estimated_bits(value[:32]) < strength.estimated_bits(value)
