"""Alembic migrations of the journal; run by ``journal.engine`` when a journal is opened."""
