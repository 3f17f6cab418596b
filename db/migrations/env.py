"""Entry point of alembic: runs the migrations on the connection it is given, inside that connection's transaction.

Without a connection (``alembic upgrade head --sql``) it prints the statements for the dialect asked for.
"""

from __future__ import annotations

from alembic import context

from db.schema import Table

if context.is_offline_mode():
    context.configure(
        dialect_name=context.config.get_main_option("dialect"), target_metadata=Table.metadata, literal_binds=True
    )
else:
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Table.metadata,
        render_as_batch=True,
        transactional_ddl=True,
    )

with context.begin_transaction():
    context.run_migrations()
