import asyncio
import time

import pytest
from argon2 import PasswordHasher

from auth.accounts import check_password, normalise_email
from auth.passwords import Passwords


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        ("  ann+tag@example.com ", "ann+tag@example.com"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@example.com.", "ann@example.com"),
        ("o'neill@mail.example", "o'neill@mail.example"),
    ],
)
def test_addresses_have_one_spelling(given: str, kept: str) -> None:
    assert normalise_email(given) == kept


@pytest.mark.parametrize(
    "given",
    ["", "ann", "ann@", "@example.com", "ann@localhost", "a b@example.com", "ann@ex ample.com", ".ann@example.com"]
    + ["ann..b@example.com", "ann@example..com", "ann@-example.com", "a\nb@example.com", "ann@example.com\nBcc: x"]
    + ["a" * 65 + "@example.com", "ann@" + "a" * 64 + ".com", "<ann@example.com>"],
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalise_email(given)


@pytest.mark.parametrize("password", ["eleven char", "a" * 257, "aaaaaaaaaaaaa", "ann@example.com", "ANN@example.com"])
def test_passwords_that_will_not_do(password: str) -> None:
    with pytest.raises(ValueError):
        check_password(password, "ann@example.com")


def test_a_password_that_will_do() -> None:
    assert check_password("twelve chars", "ann@example.com") == "twelve chars"


async def test_hashing_leaves_the_loop_free() -> None:
    passwords = Passwords(PasswordHasher(time_cost=4, memory_cost=64 * 1024, parallelism=1), threads=1)
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)

    ticking = asyncio.create_task(tick())
    began = time.perf_counter()
    await asyncio.gather(*(passwords.hash("correct horse") for _ in range(4)))
    took = time.perf_counter() - began
    ticking.cancel()
    passwords.close()
    assert longest < took / 3


async def test_verify(passwords: Passwords) -> None:
    encoded = await passwords.hash("correct horse")
    assert await passwords.verify(encoded, "correct horse")
    assert not await passwords.verify(encoded, "wrong horse")
    assert not await passwords.verify(None, "correct horse")
    assert not await passwords.verify("no hash at all", "correct horse")


async def test_an_unknown_account_costs_a_hash_too(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(passwords, "_verify", lambda encoded, _: compared.append(encoded) or True)
    assert not await passwords.verify(None, "anything")
    assert compared[0].startswith("$argon2id$")
