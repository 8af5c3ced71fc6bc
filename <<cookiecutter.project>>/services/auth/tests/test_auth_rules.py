import asyncio
import time

import pytest
from argon2 import PasswordHasher

from auth.accounts import check_password, client_of, normalise_email
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
    + ["a" * 65 + "@example.com", "ann@" + "a" * 64 + ".com", "<ann@example.com>"]
    + ["=?utf-8?q?victim=40evil.com=2c?=@example.com", "=?utf-8?q?=00?=@example.com", "a\0b@example.com"]
    + ["ann\0@example.com", "ann@exam\0ple.com", "ann\u202e@example.com", "ann\ud800@example.com"],
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalise_email(given)


@pytest.mark.parametrize(("password", "reason"), [("eleven char", "at least 12"), ("a" * 257, "at most 256")])
def test_the_length_of_passwords(password: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_password(password, "ann@example.com")


@pytest.mark.parametrize(
    "password",
    ["aaaaaaaaaaaaa", "ann@example.com", "ANN@example.com", "123456789012", "password1234", "qwertyuiop12"]
    + ["iloveyou1234", "Passw0rd2024!", "abcdefghijkl", "letmeinletmein", "1" * 256, "p4ssw0rd" * 32, "annannannann"],
)
def test_passwords_that_are_easy_to_guess(password: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ValueError, match="too easy to guess"):
        check_password(password, "ann@example.com")
    assert time.perf_counter() - began < 2  # a tenth of it on an idle machine; without a bound on the length, minutes


@pytest.mark.parametrize(
    "password", ["twelve chars", "correct horse battery", "가나다라마바사아자차카타", "é" * 3 + "fj29!kd0Lq"]
)
def test_passwords_that_are_good_enough(password: str) -> None:
    assert check_password(password, "ann@example.com") == password


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("nonsense", ""),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_counts_as_one_client(header: str, client: str) -> None:
    assert client_of(header) == client


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
