"""Settings of the auth service."""

from pydantic import Field, SecretStr

from stack.settings import DatabaseSettings, Secret


class AuthSettings(DatabaseSettings):
    """Settings of the auth service."""

    service_name: str = "auth-service"
    database_user: str = "auth"
    auth_db_password: Secret
    jwt_secret: Secret = Field(min_length=32)
    jwt_secret_previous: SecretStr = SecretStr("")
    refresh_days: int = Field(default=30, ge=1)
    login_attempts: int = Field(default=10, ge=1, description="failed logins of a client at an account before it waits")
    login_window_seconds: int = Field(default=900, ge=1, description="longest that it waits; then it starts afresh")
