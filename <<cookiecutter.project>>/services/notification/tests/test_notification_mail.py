"""Mails to a real SMTP server in this process."""

import socket
from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from notification.events import compose, parse
from notification.mailer import Deferred, Refused, SmtpMailer
from notification.settings import NotificationSettings
from stack.settings import load


class Server:
    """Takes every mail, unless told otherwise."""

    def __init__(self) -> None:
        self.mails: list = []
        self.rcpt = self.data = "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        if self.data.startswith("250"):
            self.mails.append((envelope, session.login_data if hasattr(session, "login_data") else None))
        return self.data


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server() -> Iterator[Callable[..., tuple[Server, int]]]:
    controllers: list[Controller] = []

    def start(**options) -> tuple[Server, int]:
        handler = Server()
        controllers.append(Controller(handler, hostname="127.0.0.1", port=free_port(), **options))
        controllers[-1].start()
        return handler, controllers[-1].port

    yield start
    for controller in controllers:
        controller.stop()


@pytest.fixture
def mailer(secrets, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SmtpMailer]:
    def make(port: int, **values: str) -> SmtpMailer:
        settings = {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(port),
            "SMTP_TLS": "none",
            "MAIL_FROM": "no@mail.example",
        }
        settings |= {"DATABASE_HOSTS": "x", "RABBITMQ_HOSTS": "x", **values}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        (secrets / "SMTP_PASSWORD").write_text("smtp password")
        loaded = load(NotificationSettings)
        return SmtpMailer(loaded, loaded.smtp_password)

    return make


async def test_a_mail_arrives(server, mailer, message) -> None:
    handler, port = server()
    mail = compose(parse(message(title="Grüße")), "Stack <no@mail.example>", "")
    await mailer(port).send(mail)
    ((envelope, _),) = handler.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no@mail.example", ["ann@example.com"])
    assert mail["Message-ID"].encode() in envelope.content


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"rcpt": "550 no such user"}, Refused),
        ({"rcpt": "450 mailbox busy"}, Deferred),
        ({"data": "554 looks like spam"}, Refused),
        ({"data": "452 disk full"}, Deferred),
    ],
)
async def test_what_the_server_says_decides(server, mailer, message, change: dict, outcome: type) -> None:
    handler, port = server()
    vars(handler).update(change)
    with pytest.raises(outcome, match=next(iter(change.values()))[:3]):
        await mailer(port).send(compose(parse(message()), "no@mail.example", ""))


async def test_no_server(mailer, message) -> None:
    with pytest.raises(Deferred):
        await mailer(free_port()).send(compose(parse(message()), "no@mail.example", ""))


async def test_login(server, mailer, message) -> None:
    seen = []

    def authenticate(server, session, envelope, mechanism, data) -> AuthResult:
        seen.append((data.login, data.password))
        return AuthResult(success=data.password == b"smtp password")

    _, port = server(authenticator=authenticate, auth_required=True, auth_require_tls=False)
    mail = compose(parse(message()), "no@mail.example", "")
    await mailer(port, SMTP_USER="ann").send(mail)
    assert seen == [(b"ann", b"smtp password")]


async def test_a_refused_login_is_no_reason_to_throw_mails_away(server, mailer, message) -> None:
    _, port = server(authenticator=lambda *_: AuthResult(success=False), auth_required=True, auth_require_tls=False)
    with pytest.raises(Deferred):
        await mailer(port, SMTP_USER="ann").send(compose(parse(message()), "no@mail.example", ""))


async def test_starttls_is_not_optional_when_asked_for(server, mailer, message) -> None:
    handler, port = server()
    with pytest.raises((Deferred, Refused)):
        await mailer(port, SMTP_TLS="starttls").send(compose(parse(message()), "no@mail.example", ""))
    assert not handler.mails
