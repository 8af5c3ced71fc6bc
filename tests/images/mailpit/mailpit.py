#!/usr/bin/python3 -u
"""A mail catcher with Mailpit's ports and the part of its JSON API that tests use; messages live in memory only."""

from __future__ import annotations

import html
import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections import deque
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

API = "/api/v1"
SMTP_PORT = 1025
HTTP_PORT = 8025
SNIPPET_LENGTH = 250
Json = dict[str, Any]


class Mailbox:
    """The newest messages, safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._messages: deque[Json] = deque(maxlen=limit)
        self._lock = threading.Lock()

    def add(self, message: Json) -> None:
        with self._lock:
            self._messages.appendleft(message)

    def all(self) -> list[Json]:
        """Return every message, the newest first."""
        with self._lock:
            return list(self._messages)

    def find(self, identifier: str) -> Json | None:
        """Return one message; `latest` means the newest."""
        messages = self.all()
        if identifier == "latest":
            return messages[0] if messages else None
        return next((message for message in messages if message["ID"] == identifier), None)

    def delete(self, identifiers: list[str]) -> None:
        """Delete the given messages, or all of them when none is given."""
        with self._lock:
            kept = [m for m in self._messages if identifiers and m["ID"] not in identifiers]
            self._messages.clear()
            self._messages.extend(kept)


class Receiver:
    """Takes every mail that arrives by SMTP."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.original_content or b""
        self._mailbox.add(parse_message(content, envelope.rcpt_tos))
        print(f"received a message for {', '.join(envelope.rcpt_tos)}")
        return "250 OK: queued"


def parse_message(content: bytes, recipients: list[str]) -> Json:
    """Return a mail in the form of Mailpit's API."""
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    text, markup = body(mail, "plain"), body(mail, "html")
    visible = addresses(mail, "To") + addresses(mail, "Cc")
    known = {address["Address"] for address in visible}
    return {
        "ID": uuid4().hex,
        "MessageID": str(mail.get("Message-ID", "")).strip("<>"),
        "From": (addresses(mail, "From") or [None])[0],
        "To": addresses(mail, "To"),
        "Cc": addresses(mail, "Cc"),
        "Bcc": [{"Name": "", "Address": recipient} for recipient in recipients if recipient not in known],
        "ReplyTo": addresses(mail, "Reply-To"),
        "Subject": str(mail.get("Subject", "")),
        "Date": datetime.now(UTC).isoformat(),
        "Text": text,
        "HTML": markup,
        "Size": len(content),
        "Attachments": [attachment(part) for part in mail.iter_attachments()],
        "Headers": {name: [str(value) for value in mail.get_all(name, [])] for name in mail},
    }


def body(mail: EmailMessage, subtype: str) -> str:
    """Return the mail's text of one kind, or an empty string."""
    part = mail.get_body(preferencelist=(subtype,))
    return str(part.get_content()) if part else ""


def addresses(mail: EmailMessage, header: str) -> list[Json]:
    """Return the addresses of one header."""
    pairs = getaddresses([str(value) for value in mail.get_all(header, [])])
    return [{"Name": name, "Address": address} for name, address in pairs if address]


def attachment(part: EmailMessage) -> Json:
    """Return what the API tells about an attachment."""
    content = part.get_payload(decode=True) or b""
    return {"FileName": part.get_filename() or "", "ContentType": part.get_content_type(), "Size": len(content)}


def summary(message: Json) -> Json:
    """Return a message as the list shows it."""
    hidden = {"Text", "HTML", "Headers"}
    shown = {key: value for key, value in message.items() if key not in hidden}
    return shown | {
        "Created": message["Date"],
        "Read": False,
        "Attachments": len(message["Attachments"]),
        "Snippet": " ".join(message["Text"].split())[:SNIPPET_LENGTH],
    }


def listing(messages: list[Json], start: int, limit: int) -> Json:
    """Return one page of the list of messages."""
    page = messages[start : start + limit]
    return {
        "total": len(messages),
        "unread": len(messages),
        "count": len(page),
        "messages_count": len(messages),
        "messages_unread": len(messages),
        "start": start,
        "tags": [],
        "messages": [summary(message) for message in page],
    }


def page(messages: list[Json]) -> str:
    """Return the list of messages for people."""
    rows = "".join(
        f"<tr><td>{escape(m['Date'])}<td>{escape(m['From'] and m['From']['Address'])}"
        f"<td>{escape(', '.join(a['Address'] for a in m['To']))}"
        f'<td><a href="{API}/message/{m["ID"]}">{escape(m["Subject"])}</a>'
        for m in messages
    )
    head = "<tr><th>Date<th>From<th>To<th>Subject"
    return f"<!doctype html><title>Mail</title><h1>{len(messages)} messages</h1><table>{head}{rows}</table>"


def escape(text: str | None) -> str:
    return html.escape(text or "")


class Handler(BaseHTTPRequestHandler):
    """The web page and the API."""

    mailbox: Mailbox
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        path, _, query = self.path.partition("?")
        if path in ("/livez", "/readyz"):
            self.answer(200, "text/plain", "ok")
        elif path == "/":
            self.answer(200, "text/html; charset=utf-8", page(self.mailbox.all()))
        elif path == f"{API}/messages":
            numbers = {
                name: int(value) for name, _, value in (p.partition("=") for p in query.split("&")) if value.isdigit()
            }
            self.answer_json(listing(self.mailbox.all(), numbers.get("start", 0), numbers.get("limit", 50)))
        elif path.startswith(f"{API}/message/"):
            message = self.mailbox.find(path.rpartition("/")[2])
            self.answer_json(message) if message else self.answer(404, "text/plain", "message not found")
        else:
            self.answer(404, "text/plain", "not found")

    def do_DELETE(self) -> None:  # noqa: N802
        if self.path != f"{API}/messages":
            self.answer(404, "text/plain", "not found")
            return
        try:
            wanted = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        except ValueError:
            self.answer(400, "text/plain", "the body is not JSON")
            return
        self.mailbox.delete(wanted.get("IDs") or [])
        self.answer(200, "text/plain", "ok")

    def answer_json(self, content: Json) -> None:
        self.answer(200, "application/json", json.dumps(content))

    def answer(self, status: int, kind: str, content: str) -> None:
        data = content.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: health checks would fill the log."""


def serve() -> int:
    """Receive mail and answer requests until SIGTERM or SIGINT."""
    Handler.mailbox = Mailbox(int(os.environ.get("MP_MAX_MESSAGES") or 500))
    web = ThreadingHTTPServer(("", HTTP_PORT), Handler)
    smtp = Controller(
        Receiver(Handler.mailbox),
        hostname="",
        port=SMTP_PORT,
        auth_require_tls=False,
        authenticator=lambda *_: AuthResult(success=True),
    )
    smtp.start()
    threading.Thread(target=web.serve_forever, daemon=True).start()
    print(f"SMTP on port {SMTP_PORT}, HTTP on port {HTTP_PORT}")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    web.shutdown()
    smtp.stop()
    return 0


def ready() -> int:
    """Return 0 when a server in this container answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/readyz", timeout=3) as response:
            return 0 if response.status == 200 else 1
    except (OSError, urllib.error.URLError):
        return 1


if __name__ == "__main__":
    # blocked before any thread starts, so that sigwait is the one that takes them
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(ready() if sys.argv[1:] == ["readyz"] else serve())
