"""Generations: compare-and-set of what a project serves. Exactly one of several racing writers wins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tidewheel.errors import Conflict
from tidewheel.journal import schema
from tidewheel.journal.chain import append_entry, canonical
from tidewheel.journal.engine import Store


@dataclass(frozen=True)
class Generation:
    """The ``generation``-th state of a project, counted from 1."""

    project: str
    generation: int
    body: dict[str, Any]
    actor: str
    reason: str
    recorded_at_us: int


class Generations(Store):
    """The generations' part of the journal."""

    def swap(
        self, project: str, expected: int, body: Mapping[str, Any], *, actor: str = "controller", reason: str = ""
    ) -> Generation:
        """Write generation ``expected + 1`` if ``expected`` is the head (0: there is none yet), with a ledger entry.

        Raises Conflict where somebody else was first.
        """
        with self.write() as connection:
            # Under PostgreSQL this row is the lock that makes read-then-write one step.
            connection.execute(sa.select(schema.chain_head).with_for_update()).one()
            table = schema.generations
            head: int | None = connection.execute(
                sa.select(sa.func.max(table.c.generation)).where(table.c.project == project)
            ).scalar()
            if (head or 0) != expected:
                raise Conflict(
                    f"{project}: generation {expected + 1} was not written, the head is {head or 0} "
                    f"(expected {expected}); read the head again and retry"
                )
            made = Generation(project, expected + 1, dict(body), actor, reason, self.clock.now_us())
            connection.execute(
                table.insert().values(
                    project=project,
                    generation=made.generation,
                    body=canonical(body),
                    actor=actor,
                    reason=reason,
                    recorded_at_us=made.recorded_at_us,
                )
            )
            append_entry(
                connection,
                project=project,
                kind="generation",
                actor=actor,
                as_of_us=None,
                recorded_at_us=made.recorded_at_us,
                reason=reason,
                key=f"generation-{made.generation}",
                body={"generation": made.generation, "document": dict(body)},
            )
        return made

    def head(self, project: str) -> Generation | None:
        """The newest generation, None before the first."""
        newest = self.generations(project, limit=1, newest_first=True)
        return newest[0] if newest else None

    def generations(
        self, project: str, *, limit: int | None = None, newest_first: bool = False
    ) -> tuple[Generation, ...]:
        """All generations of a project, oldest first unless asked otherwise."""
        table = schema.generations
        order = table.c.generation.desc() if newest_first else table.c.generation
        query = sa.select(table).where(table.c.project == project).order_by(order).limit(limit)
        with self.read() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(Generation(**{**row, "body": json.loads(row["body"])}) for row in rows)
