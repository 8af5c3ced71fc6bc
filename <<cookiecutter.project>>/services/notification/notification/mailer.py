"""Hands mails to the SMTP server."""

import asyncio
from email.message import EmailMessage
from typing import Protocol

import aiosmtplib
from prometheus_client import Gauge
from pydantic import SecretStr

from notification.settings import NotificationSettings

SMTP_UP = Gauge("smtp_up", "1 if the last mail was taken or refused by a server that answered.")

# Each step of the dialogue, and all of it; seconds.
STEP_SECONDS, TOTAL_SECONDS = 15, 60


class Refused(Exception):
    """The server will never take this mail."""


class Deferred(Exception):
    """Not now: no connection, no login, or the server asks to come back."""


class Mailer(Protocol):
    """Where mails go."""

    async def send(self, mail: EmailMessage) -> None:
        """Hand over a mail.

        Raises:
            Refused, Deferred
        """


class SmtpMailer:
    """One connection a mail, as many at a time as the settings allow."""

    def __init__(self, settings: NotificationSettings, password: SecretStr) -> None:
        self._settings, self._password = settings, password
        self._free = asyncio.Semaphore(settings.smtp_connections)

    async def send(self, mail: EmailMessage) -> None:
        async with self._free:
            await self._send(mail)

    async def _send(self, mail: EmailMessage) -> None:
        settings = self._settings
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                await aiosmtplib.send(
                    mail,
                    hostname=settings.smtp_host,
                    port=settings.smtp_port,
                    username=settings.smtp_user or None,
                    password=self._password.get_secret_value() or None if settings.smtp_user else None,
                    use_tls=settings.smtp_tls == "tls",
                    start_tls=settings.smtp_tls == "starttls",
                    timeout=STEP_SECONDS,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            SMTP_UP.set(1)
            raise _by_code(error.recipients[0].code, f"recipient refused: {error.recipients[0].message}") from None
        except aiosmtplib.SMTPDataError as error:
            SMTP_UP.set(1)
            raise _by_code(error.code, error.message) from None
        except aiosmtplib.SMTPNotSupported as error:
            raise Refused(str(error)) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            # Refused logins and senders are settings to be corrected, not a reason to throw mails away.
            SMTP_UP.set(0)
            raise Deferred(str(error) or type(error).__name__) from None
        SMTP_UP.set(1)


def _by_code(code: int, message: str) -> Exception:
    return (Refused if code >= 500 else Deferred)(f"{code} {message}")
