import time
import uuid

import jwt
import pytest
from pydantic import SecretStr

from stack.tokens import AUDIENCE, ISSUER, LIFETIME_SECONDS, InvalidToken, Keys, Principal, bearer

OLD, NEW = SecretStr("o" * 64), SecretStr("n" * 64)
ANN = Principal(uuid.uuid4(), "ann@example.com", frozenset({"user", "admin"}))


def test_round_trip() -> None:
    token = Keys(NEW).sign(ANN)
    assert Keys(NEW).verify(token) == ANN
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == {"sub", "email", "roles", "iat", "exp", "jti", "iss", "aud"}
    assert claims["exp"] - claims["iat"] == LIFETIME_SECONDS == 900


def test_the_previous_key_still_verifies_but_does_not_sign() -> None:
    token = Keys(OLD).sign(ANN)
    both = Keys(NEW, OLD)
    assert both.verify(token) == ANN
    assert Keys(NEW).verify(both.sign(ANN)) == ANN
    with pytest.raises(InvalidToken):
        Keys(NEW, SecretStr("")).verify(token)


def test_out_of_date() -> None:
    with pytest.raises(InvalidToken):
        Keys(NEW).verify(Keys(NEW).sign(ANN, now=time.time() - LIFETIME_SECONDS - 60))


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é"])
def test_rubbish(token: str) -> None:
    with pytest.raises(InvalidToken):
        Keys(NEW).verify(token)


@pytest.mark.parametrize("change", [{"aud": "other"}, {"iss": "other"}, {"sub": "nobody"}, {"roles": None}])
def test_right_key_wrong_claims(change: dict) -> None:
    now = int(time.time())
    claims = {"sub": str(ANN.id), "email": ANN.email, "roles": [], "iat": now, "exp": now + 60, "jti": "1"}
    claims |= {"iss": ISSUER, "aud": AUDIENCE, **change}
    kid = jwt.get_unverified_header(Keys(NEW).sign(ANN))["kid"]
    with pytest.raises(InvalidToken):
        Keys(NEW).verify(jwt.encode(claims, NEW.get_secret_value(), "HS256", headers={"kid": kid}))


def test_an_unsigned_token_is_refused() -> None:
    kid = jwt.get_unverified_header(Keys(NEW).sign(ANN))["kid"]
    claims = jwt.decode(Keys(NEW).sign(ANN), options={"verify_signature": False})
    with pytest.raises(InvalidToken):
        Keys(NEW).verify(jwt.encode(claims, None, "none", headers={"kid": kid}))


@pytest.mark.parametrize(
    ("header", "token"),
    [(None, ""), ("", ""), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", "")],
)
def test_bearer(header: str | None, token: str) -> None:
    assert bearer(header) == token
