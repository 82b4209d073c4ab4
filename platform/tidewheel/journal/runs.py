"""Which stages ran for which as-of time: what the schedule asks before it starts one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tidewheel.journal import schema
from tidewheel.journal.chain import canonical
from tidewheel.journal.engine import Store


@dataclass(frozen=True)
class StageRun:
    """One run of a stage; ``finished_at_us`` is None while it runs or where it died. Wall clock except as_of_us."""

    project: str
    stage: str
    as_of_us: int
    started_at_us: int
    finished_at_us: int | None
    outcome: dict[str, Any] | None


class Runs(Store):
    """The runs' part of the journal."""

    def start_run(self, project: str, stage: str, as_of_us: int) -> None:
        """Say that a stage begins. A finished run stays finished until ``finish_run`` replaces its outcome."""
        table = schema.runs
        with self.write() as connection:
            changed = connection.execute(
                table.update().where(*_same(project, stage, as_of_us)).values(started_at_us=self.clock.now_us())
            )
            if changed.rowcount == 0:
                connection.execute(
                    table.insert().values(
                        project=project, stage=stage, as_of_us=as_of_us, started_at_us=self.clock.now_us()
                    )
                )

    def finish_run(self, project: str, stage: str, as_of_us: int, outcome: Mapping[str, Any] | None = None) -> None:
        """Say that a stage is done, started or not; idempotent."""
        table, now_us = schema.runs, self.clock.now_us()
        told = {"finished_at_us": now_us, "outcome": canonical(dict(outcome or {}))}
        with self.write() as connection:
            changed = connection.execute(table.update().where(*_same(project, stage, as_of_us)).values(**told))
            if changed.rowcount == 0:
                connection.execute(
                    table.insert().values(project=project, stage=stage, as_of_us=as_of_us, started_at_us=now_us, **told)
                )

    def last_runs(self, project: str) -> dict[str, int]:
        """Stage to the as-of time of its newest finished run."""
        table = schema.runs
        query = (
            sa.select(table.c.stage, sa.func.max(table.c.as_of_us))
            .where(table.c.project == project, table.c.finished_at_us.is_not(None))
            .group_by(table.c.stage)
        )
        with self.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def runs(
        self,
        project: str,
        *,
        stage: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> tuple[StageRun, ...]:
        """Runs with since_us <= as_of_us <= until_us by as-of time, oldest first unless asked otherwise."""
        table = schema.runs
        query = sa.select(table).where(table.c.project == project)
        if stage is not None:
            query = query.where(table.c.stage == stage)
        if since_us is not None:
            query = query.where(table.c.as_of_us >= since_us)
        if until_us is not None:
            query = query.where(table.c.as_of_us <= until_us)
        order = table.c.as_of_us.desc() if newest_first else table.c.as_of_us
        with self.read() as connection:
            rows = connection.execute(query.order_by(order, table.c.stage).limit(limit)).mappings().all()
        return tuple(
            StageRun(**{**row, "outcome": json.loads(row["outcome"]) if row["outcome"] else None}) for row in rows
        )


def _same(project: str, stage: str, as_of_us: int) -> tuple[sa.ColumnElement[bool], ...]:
    table = schema.runs
    return (table.c.project == project, table.c.stage == stage, table.c.as_of_us == as_of_us)
