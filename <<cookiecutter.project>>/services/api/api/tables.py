"""Tables of the schema `api`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = sa.MetaData()
_moment = sa.DateTime(timezone=True)

items = sa.Table(
    "items",
    metadata,
    # UUIDv7: ordered by time, so the key is also the order of the list.
    sa.Column("id", UUID, primary_key=True),
    sa.Column("owner_id", UUID, nullable=False),
    sa.Column("owner_email", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", _moment, nullable=False),
    sa.Column("updated_at", _moment, nullable=False),
    sa.Index("items_owner", "owner_id", "id"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("payload", JSONB, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", _moment, nullable=False, server_default=sa.func.now()),
    sa.Index("outbox_due", "due_at", "id"),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("owner_id", UUID, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("item_id", UUID, nullable=False),
    sa.Column("answer", JSONB, nullable=False),
    sa.Column("created_at", _moment, nullable=False, server_default=sa.func.now(), index=True),
)
