"""What Alembic runs: migrations on the connection that it was given, in its transaction."""

from __future__ import annotations

from alembic import context

from services.console.store.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
context.run_migrations()
