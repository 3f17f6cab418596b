"""Schema 2: how far a delivery is proven, our reports to peers, and destinations that are paused.

Frozen: it names no class of the program.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text()
NUMBER = sa.BigInteger()
TIME = sa.BigInteger()  # microseconds since 1970-01-01 UTC


def upgrade() -> None:
    """Add columns to two tables, and one table."""
    add("delivery", "proof_tries", sa.Column("reason_code", TEXT, nullable=True))
    add(
        "commitment",
        "tries",
        sa.Column("not_before", TIME, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
    )
    op.create_table(
        "pause",
        sa.Column("destination", TEXT, primary_key=True),
        sa.Column("since", TIME, nullable=False),
        sa.Column("paused_by", TEXT, nullable=False),
        sa.Column("because", TEXT, nullable=False),
    )


def add(table: str, counter: str, *columns: sa.Column[object]) -> None:
    """Add columns, and a counter that is 0 in the rows there are. SQLite rebuilds the table for the second step."""
    with op.batch_alter_table(table) as batch:
        batch.add_column(sa.Column(counter, NUMBER, nullable=False, server_default="0"))
        for column in columns:
            batch.add_column(column)
    with op.batch_alter_table(table) as batch:
        batch.alter_column(counter, server_default=None)
