"""The journal: one append-only, hash-chained ledger and the facts beside it, in one SQL database.

Every process that decides or acts opens one by URL (``sqlite:////path/journal.db`` or ``postgresql+driver://...``);
opening makes or migrates the tables. Nothing here knows what the bodies mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from tidewheel.errors import Conflict
from tidewheel.journal import schema
from tidewheel.journal.chain import Entry, append_entry, canonical, check_chain, to_entry
from tidewheel.journal.decisions import Decisions
from tidewheel.journal.findings import Findings
from tidewheel.journal.generations import Generations
from tidewheel.journal.runs import Runs


class Journal(Generations, Findings, Decisions, Runs):
    """Ledger, generations, findings, decisions and runs. Safe with several processes and threads."""

    def append(
        self,
        project: str,
        kind: str,
        body: Mapping[str, Any],
        *,
        actor: str,
        as_of_us: int | None = None,
        reason: str = "",
        key: str | None = None,
    ) -> Entry:
        """Add an entry to the ledger. The same key with the same kind and body returns the entry that is there.

        Raises Conflict where the key is taken by another body.
        """
        with self.write() as connection:
            if key is not None:
                connection.execute(sa.select(schema.chain_head).with_for_update()).one()
                table = schema.ledger
                found = (
                    connection.execute(sa.select(table).where(table.c.project == project, table.c.key == key))
                    .mappings()
                    .one_or_none()
                )
                if found is not None:
                    if (found["kind"], found["body"]) == (kind, canonical(dict(body))):
                        return to_entry(dict(found))
                    raise Conflict(
                        f"{project}: ledger key {key!r} is taken by entry {found['seq']} with another body; "
                        "use another key"
                    )
            return append_entry(
                connection,
                project=project,
                kind=kind,
                actor=actor,
                as_of_us=as_of_us,
                recorded_at_us=self.clock.now_us(),
                reason=reason,
                key=key,
                body=dict(body),
            )

    def entries(
        self, project: str, kind: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> tuple[Entry, ...]:
        """Ledger entries of a project, oldest first unless asked otherwise."""
        table = schema.ledger
        query = sa.select(table).where(table.c.project == project)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        order = table.c.seq.desc() if newest_first else table.c.seq
        with self.read() as connection:
            rows = connection.execute(query.order_by(order).limit(limit)).mappings().all()
        return tuple(to_entry(dict(row)) for row in rows)

    def verify_chain(self) -> None:
        """Recompute the hash chain. Raises ContractViolation that names the first broken entry."""
        with self.read() as connection:
            check_chain(connection)
