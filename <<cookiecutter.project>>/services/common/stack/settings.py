"""Settings from the environment, secrets from files."""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

Secret = Annotated[SecretStr, Field(min_length=1)]
"""A secret without which the service cannot work. An optional one is a plain `SecretStr` with an empty default."""


def secrets_folder() -> Path:
    """Where the secrets are mounted, one file each."""
    return Path(os.environ.get("SECRETS_DIR", "/run/secrets"))


def hosts_of(value: str, port: int) -> list[tuple[str, int]]:
    """`a,b:5433` as [("a", port), ("b", 5433)]."""
    pairs = (entry.strip().partition(":") for entry in value.split(",") if entry.strip())
    return [(host, int(own or port)) for host, _, own in pairs]


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


class LiveSecret(SecretStr):
    """A secret that may change while the service runs (`invoke secret-rotate`): its file is read at each use.

    Who opens connections all the time uses it; the file that was there at the start is rewritten in place.
    """

    def __init__(self, path: Path, at_start: SecretStr) -> None:
        super().__init__(at_start.get_secret_value())
        self._path = path

    def get_secret_value(self) -> str:
        """The content of the file, stripped; what it was at the start when it cannot be read."""
        try:
            return self._path.read_text(encoding="utf-8").strip() or super().get_secret_value()
        except (OSError, UnicodeDecodeError):
            return super().get_secret_value()


class _SecretFiles(PydanticBaseSettingsSource):
    """Values of the secret fields: the stripped content of the file that has the field's name in capitals."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if not _is_secret(field):
            return None, field_name, False
        try:
            value = (secrets_folder() / field_name.upper()).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None, field_name, False
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class _Environment(EnvSettingsSource):
    """The environment, which never holds a secret."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if _is_secret(field):
            return None, field_name, False
        return super().get_field_value(field, field_name)


class Settings(BaseSettings):
    """Settings of every service."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    service_name: str = "service"
    environment: str = "dev"
    log_level: str = Field(default="info", pattern="(?i)^(debug|info|warning|error)$")
    port: int = Field(default=8000, ge=0, le=65535)
    drain_seconds: float = Field(default=5, ge=0, description="how long a stopping service keeps serving, seconds")
    grace_seconds: float = Field(default=20, ge=0, description="how long open requests may take after that, seconds")

    def live(self, name: str) -> LiveSecret:
        """The secret field `name` as its file has it at each use."""
        return LiveSecret(secrets_folder() / name.upper(), getattr(self, name))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), _SecretFiles(settings_cls)


class DatabaseSettings(Settings):
    """How to reach the database. The password is a field of each service, because its name differs."""

    database_hosts: str = Field(min_length=1, description="host[:port], separated by commas")
    database_name: str = "appdb"
    database_user: str = Field(min_length=1)
    database_pool: int = Field(default=15, ge=1, description="connections at most, of a process to a role")
    database_deadline: float = Field(default=8, gt=0, description="longest a request waits for the database, seconds")


class BrokerSettings(Settings):
    """How to reach RabbitMQ."""

    rabbitmq_hosts: str = Field(min_length=1, description="host[:port], separated by commas: nodes of one cluster")
    rabbitmq_user: str = Field(min_length=1)


S = TypeVar("S", bound=Settings)


def load(kind: type[S], **values: Any) -> S:
    """Read the settings; print one clear line and exit with 1 when something is missing or wrong."""
    try:
        return kind(**values)
    except (ValidationError, OSError) as error:
        message = _explain(kind, error)
    import json

    line: Mapping[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "critical",
        "service": os.environ.get("SERVICE_NAME", "service"),
        "event": message,
    }
    print(json.dumps(line), flush=True)
    sys.exit(1)


def _explain(kind: type[Settings], error: ValidationError | OSError) -> str:
    if isinstance(error, OSError):
        return f"cannot read secret {error.filename}: {error.strerror}"
    parts = []
    for problem in error.errors(include_input=False, include_url=False):
        if not problem["loc"]:  # about several settings, which it names
            parts.append(problem["msg"].removeprefix("Value error, "))
            continue
        field = str(problem["loc"][0])
        if _is_secret(kind.model_fields[field]):
            path = secrets_folder() / field.upper()
            if problem["type"] == "missing" or problem.get("ctx", {}).get("min_length") == 1:
                parts.append(f"secret {field.upper()} is missing or empty: put it into {path}")
            else:
                parts.append(f"secret {field.upper()} in {path} is not usable: {problem['msg']}")
        elif problem["type"] == "missing":
            parts.append(f"setting {field.upper()} is missing from the environment")
        else:
            parts.append(f"setting {field.upper()} is not usable: {problem['msg']}")
    return "; ".join(parts)
