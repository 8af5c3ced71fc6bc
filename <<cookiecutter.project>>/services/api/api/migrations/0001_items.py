"""Items, the outbox of their events, and the answers given to idempotency keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "items",
        sa.Column("id", UUID, primary_key=True),
        sa.Column("owner_id", UUID, nullable=False),
        sa.Column("owner_email", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
    )
    op.create_index("items_owner", "items", ["owner_id", "id"])
    op.create_table(
        "outbox",
        sa.Column("id", UUID, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", moment, nullable=False, server_default=sa.func.now()),
    )
    op.create_index("outbox_due", "outbox", ["due_at", "id"])
    op.create_table(
        "idempotency",
        sa.Column("owner_id", UUID, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("item_id", UUID, nullable=False),
        sa.Column("answer", JSONB, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now(), index=True),
    )
