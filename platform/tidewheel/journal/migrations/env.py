"""Alembic's entry: migrate the connection that ``journal.engine`` holds inside its own transaction."""

from __future__ import annotations

from alembic import context

from tidewheel.journal.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
