"""Settings of the api."""

from pydantic import Field, SecretStr

from api.position import MAX_CACHE_SECONDS
from stack.settings import BrokerSettings, DatabaseSettings, Secret


class ApiSettings(DatabaseSettings, BrokerSettings):
    """Settings of the api."""

    service_name: str = "api"
    database_user: str = "api"
    rabbitmq_user: str = "api"
    redis_host: str = Field(min_length=1)
    redis_port: int = 6379
    redis_sentinels: str = Field(default="", description="host[:port], separated by commas; they know the primary then")
    auth_url: str = Field(min_length=1, pattern="^https?://")
    # more than the auth service waits for its database, so that its answer says what is wrong, and when to try again
    auth_timeout: float = Field(default=10, gt=0, description="longest that the auth service may take, seconds")
    cache_seconds: int = Field(default=60, ge=1, le=MAX_CACHE_SECONDS)
    api_db_password: Secret
    redis_password: Secret
    api_rabbitmq_password: Secret
    jwt_secret: Secret = Field(min_length=32)
    jwt_secret_previous: SecretStr = SecretStr("")
