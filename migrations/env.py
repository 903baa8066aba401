"""Runs the migrations on the connection, and inside the transaction, that outboxd hands in."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="outboxd_schema")
context.run_migrations()
