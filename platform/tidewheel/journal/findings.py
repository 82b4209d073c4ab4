"""What the checks found, by project, as-of time and stage; running a stage again replaces what it found before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from tidewheel.findings import Finding
from tidewheel.journal import schema
from tidewheel.journal.chain import canonical
from tidewheel.journal.engine import Store


@dataclass(frozen=True)
class RecordedFinding:
    """A finding and when it was made; ``as_of_us`` is event time, ``context`` whatever its maker adds (versions...)."""

    as_of_us: int
    finding: Finding
    stage: str
    context: dict[str, Any]


class Findings(Store):
    """The findings' part of the journal."""

    def record_findings(
        self,
        project: str,
        as_of_us: int,
        findings: Sequence[Finding],
        context: Mapping[str, Any] | None = None,
        *,
        stage: str = "monitor",
    ) -> None:
        """Record all findings of one run of ``stage``; idempotent: a second run replaces the first."""
        table, now_us, told = schema.findings, self.clock.now_us(), canonical(dict(context or {}))
        rows = [
            {
                "project": project,
                "as_of_us": as_of_us,
                "stage": stage,
                "ordinal": ordinal,
                "reason": finding.reason,
                "body": canonical(asdict(finding)),
                "context": told,
                "recorded_at_us": now_us,
            }
            for ordinal, finding in enumerate(findings)
        ]
        with self.write() as connection:
            connection.execute(
                table.delete().where(table.c.project == project, table.c.as_of_us == as_of_us, table.c.stage == stage)
            )
            if rows:
                connection.execute(table.insert(), rows)

    def findings(
        self, project: str, since_us: int | None = None, until_us: int | None = None, *, stage: str | None = None
    ) -> tuple[RecordedFinding, ...]:
        """Findings with since_us <= as_of_us <= until_us, oldest first, in the order of their run."""
        table = schema.findings
        query = sa.select(table).where(table.c.project == project)
        if since_us is not None:
            query = query.where(table.c.as_of_us >= since_us)
        if until_us is not None:
            query = query.where(table.c.as_of_us <= until_us)
        if stage is not None:
            query = query.where(table.c.stage == stage)
        with self.read() as connection:
            rows = connection.execute(query.order_by(table.c.as_of_us, table.c.stage, table.c.ordinal)).all()
        return tuple(
            RecordedFinding(row.as_of_us, Finding(**json.loads(row.body)), row.stage, json.loads(row.context))
            for row in rows
        )
