"""Which events have been dealt with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "deliveries",
        sa.Column("event_id", UUID, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("holder", UUID),
        sa.Column("leased_until", moment),
        sa.Column("updated_at", moment, nullable=False, server_default=sa.func.now()),
    )
    op.create_index("deliveries_updated_at", "deliveries", ["updated_at"])
