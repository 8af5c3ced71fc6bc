"""Settings of new-service: each is an environment variable of its name in capitals, and a secret a file of that name."""

from pydantic import Field

from stack.settings import DatabaseSettings, Secret


class NewServiceSettings(DatabaseSettings):
    """Settings of new-service."""

    service_name: str = "new-service"
    base_path: str = ""
    database_user: str = "newservice"
    database_pool: int = Field(default=5, ge=1)
    newservice_db_password: Secret
