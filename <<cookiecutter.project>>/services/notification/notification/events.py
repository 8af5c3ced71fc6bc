"""What the broker delivers, and the mail that follows from it."""

import uuid
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any

from pydantic import BaseModel, Field, ValidationError


class Poison(Exception):
    """A message that no repetition will make usable."""


class ItemData(BaseModel):
    """What the api tells about an item."""

    item_id: uuid.UUID
    title: str = Field(max_length=1000)
    owner_id: uuid.UUID
    owner_email: str = Field(min_length=3, max_length=320)


class Event(BaseModel):
    """Something that happened."""

    id: uuid.UUID
    type: str
    occurred_at: datetime
    data: ItemData


_TEXTS = {
    "item.created": ("New: {title}", "You have created “{title}”."),
    "item.changed": ("Changed: {title}", "You have changed “{title}”."),
    "item.deleted": ("Deleted: {title}", "“{title}” has been deleted."),
}


def parse(body: bytes) -> Event:
    """The event in a message.

    Raises:
        Poison: no event, or of a type that is not known here.
    """
    try:
        event = Event.model_validate_json(body)
    except ValidationError as error:
        problem: Any = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "message"
        raise Poison(f"{where}: {problem['msg']}") from None
    if event.type not in _TEXTS:
        raise Poison(f"unknown type {event.type[:100]!r}")
    return event


def compose(event: Event, sender: str, public_url: str) -> EmailMessage:
    """The mail for an event. The same event always makes the same Message-ID.

    Raises:
        Poison: the address cannot be written into a header.
    """
    title = " ".join(event.data.title.split())
    subject, text = (part.format(title=title) for part in _TEXTS[event.type])
    mail = EmailMessage()
    try:
        mail["From"] = sender
        mail["To"] = event.data.owner_email
        mail["Subject"] = subject
        mail["Date"] = format_datetime(event.occurred_at)
        mail["Message-ID"] = f"<{event.id}@{parseaddr(sender)[1].rpartition('@')[2] or 'localhost'}>"
        mail["Auto-Submitted"] = "auto-generated"
    except ValueError as error:
        raise Poison(f"cannot be written as a mail: {error}") from None
    # As a mail server would read it: an encoded word in an address can hide another one.
    to = event.data.owner_email
    if not to.isprintable() or [address.addr_spec for address in mail["To"].addresses] != [to]:
        raise Poison("owner_email is not an address")
    mail.set_content(text + (f"\n\n{public_url}\n" if public_url else "\n"))
    return mail
