"""Tables of the journal, for SQLite and PostgreSQL alike. The migrations build them; a test compares the two.

JSON is kept as canonical text, so that the bytes that were hashed are the bytes that are stored.
"""

from __future__ import annotations

import sqlalchemy as sa

# The newest revision in migrations/versions; a test compares it with Alembic's own answer.
HEAD_REVISION = "0001"

METADATA = sa.MetaData()

ledger = sa.Table(
    "ledger",
    METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("as_of_us", sa.BigInteger),
    sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("prev_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.UniqueConstraint("project", "key", name="ledger_project_key"),
    sa.Index("ledger_project_kind", "project", "kind", "seq"),
)

# One row: the newest entry's number and hash. Writers lock it; it tells a truncated ledger from a whole one.
chain_head = sa.Table(
    "chain_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

generations = sa.Table(
    "generations",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
)

findings = sa.Table(
    "findings",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("as_of_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
)

decisions = sa.Table(
    "decisions",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("as_of_us", sa.BigInteger, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("findings", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
    sa.Column("changed_at_us", sa.BigInteger, nullable=False),
    sa.Index("decisions_project_as_of", "project", "kind", "as_of_us"),
)

runs = sa.Table(
    "runs",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("as_of_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("started_at_us", sa.BigInteger, nullable=False),
    sa.Column("finished_at_us", sa.BigInteger),
    sa.Column("outcome", sa.Text),
)
