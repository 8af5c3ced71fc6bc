"""Settings of the api."""

from pydantic import Field, SecretStr

from stack.settings import BrokerSettings, DatabaseSettings, Secret


class ApiSettings(DatabaseSettings, BrokerSettings):
    """What the api is told."""

    service_name: str = "api"
    database_user: str = "api"
    rabbitmq_user: str = "api"
    redis_host: str = Field(min_length=1)
    redis_port: int = 6379
    auth_url: str = Field(min_length=1, pattern="^https?://")
    auth_timeout: float = Field(default=8, gt=0, description="longest that the auth service may take, seconds")
    cache_seconds: int = Field(default=60, ge=1)
    api_db_password: Secret
    redis_password: Secret
    api_rabbitmq_password: Secret
    jwt_secret: Secret = Field(min_length=32)
    jwt_secret_previous: SecretStr = SecretStr("")
