"""Settings of the notification service."""

from typing import Literal

from pydantic import Field, SecretStr

from stack.settings import BrokerSettings, DatabaseSettings, Secret


class NotificationSettings(DatabaseSettings, BrokerSettings):
    """Settings of the notification service."""

    service_name: str = "notification-service"
    database_user: str = "notification"
    database_pool: int = Field(default=8, ge=1)
    rabbitmq_user: str = "notification"
    smtp_host: str = Field(min_length=1)
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_user: str = ""
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    smtp_connections: int = Field(default=4, ge=1, description="mails handed over at the same time")
    mail_from: str = Field(min_length=3)
    public_url: str = ""
    max_attempts: int = Field(default=15, ge=1, description="with the waits of 5 s, 30 s, then 300 s: about an hour")
    notification_db_password: Secret
    notification_rabbitmq_password: Secret
    smtp_password: SecretStr = SecretStr("")
