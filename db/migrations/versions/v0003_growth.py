"""Schema 3: indexes with which nothing takes longer because much is stored.

Frozen: it names no class of the program.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Exchange an index of deliveries, and add those for what is counted, shown newest first or to be proven."""
    op.drop_index("ix_delivery_destination_state_not_before", "delivery")
    due = ["id", "not_before"]
    op.create_index("ix_delivery_to_send", "delivery", ["state", "destination", *due])
    op.create_index("ix_delivery_to_prove", "delivery", ["state", "destination", "proof", "transaction_uid", *due])
    partial("ix_delivery_no_plain_success", "delivery", ["status_hex", "destination"], "status_hex <> '0000'")
    partial("ix_event_coerced", "event", ["reason"], "reason = 'coerced'")
    index("instance", "state", "series_id")
    index("series", "state")
    index("job", "state", "id")


def index(table: str, *columns: str) -> None:
    """An index named as the program names its indexes."""
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def partial(name: str, table: str, columns: list[str], where: str) -> None:
    """An index of some rows only."""
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
