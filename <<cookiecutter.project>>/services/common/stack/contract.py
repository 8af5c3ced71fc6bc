"""Requests and responses of the auth service, which serves them, and of the api, which forwards them."""

from typing import Literal

from pydantic import BaseModel, Field

from stack.tokens import LIFETIME_SECONDS


class Credentials(BaseModel):
    """Address and password. The bounds only keep absurd sizes out: the rules are in `auth.accounts`."""

    email: str = Field(max_length=320)
    password: str = Field(max_length=1024)


class RefreshRequest(BaseModel):
    """A refresh token."""

    refresh_token: str = Field(max_length=256)


class Account(BaseModel):
    """An account, as its owner sees it."""

    id: str
    email: str
    roles: list[str]


class Tokens(BaseModel):
    """What a login yields."""

    access_token: str
    refresh_token: str = Field(description="works once, to get new tokens")
    expires_in: int = Field(default=LIFETIME_SECONDS, description="seconds")
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
