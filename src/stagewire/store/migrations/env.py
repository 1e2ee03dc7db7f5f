"""Alembic's entry: run the migrations on the connection that `upgrades` passes in."""

from alembic import context

from stagewire.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.Table.metadata,
    render_as_batch=True,
    compare_type=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
