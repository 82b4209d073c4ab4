"""Decisions and what became of them. Each change of state is also a ledger entry, in the same transaction.

none        nothing is asked for; final
pending     waits for a person          -> approved | refused
approved    may be carried out          -> executed | refused (a person takes it back)
refused     final
executed    carried out, with a result; final
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from tidewheel.errors import Conflict, NotFound
from tidewheel.findings import Decision, Finding, decision_id
from tidewheel.journal import schema
from tidewheel.journal.chain import append_entry, canonical
from tidewheel.journal.engine import Store

DecisionState = Literal["none", "pending", "approved", "refused", "executed"]

_MAY_BECOME: dict[str, tuple[DecisionState, ...]] = {
    "none": (),
    "pending": ("approved", "refused"),
    "approved": ("executed", "refused"),
    "refused": (),
    "executed": (),
}


@dataclass(frozen=True)
class DecisionRecord:
    """A decision as recorded. ``actor`` and ``reason`` are those of the newest change of state."""

    project: str
    id: str
    kind: str
    as_of_us: int
    decision: Decision
    state: DecisionState
    details: dict[str, Any]
    actor: str
    reason: str
    result: dict[str, Any] | None
    recorded_at_us: int
    changed_at_us: int


class Decisions(Store):
    """The decisions' part of the journal."""

    def record_decision(
        self,
        project: str,
        kind: str,
        as_of_us: int,
        decision: Decision,
        state: DecisionState,
        details: Mapping[str, Any] | None = None,
        *,
        actor: str = "policy",
        suffix: str = "",
    ) -> DecisionRecord:
        """Record a decision once: where its id is there already, the first record is returned unchanged."""
        made, now_us = decision_id(kind, as_of_us, suffix), self.clock.now_us()
        with self.write() as connection:
            found = _find(connection, made, project, lock=True)
            if found is not None:
                return found
            row = {
                "project": project,
                "id": made,
                "kind": kind,
                "as_of_us": as_of_us,
                "action": decision.action,
                "findings": canonical([asdict(finding) for finding in decision.findings]),
                "details": canonical(dict(details or {})),
                "state": state,
                "actor": actor,
                "reason": decision.summary(),
                "result": None,
                "recorded_at_us": now_us,
                "changed_at_us": now_us,
            }
            connection.execute(schema.decisions.insert().values(**row))
            _audit(connection, row, as_of_us)
            return _to_record(row)

    def approve(self, decision: str, actor: str, reason: str, project: str | None = None) -> DecisionRecord:
        """pending -> approved. Approving an approved decision again changes nothing. Raises NotFound, Conflict."""
        return self._become(decision, "approved", actor=actor, reason=reason, project=project)

    def refuse(self, decision: str, actor: str, reason: str, project: str | None = None) -> DecisionRecord:
        """pending or approved -> refused. Raises NotFound, Conflict."""
        return self._become(decision, "refused", actor=actor, reason=reason, project=project)

    def mark_executed(
        self,
        decision: str,
        result: Mapping[str, Any],
        actor: str = "platform",
        reason: str = "",
        project: str | None = None,
    ) -> DecisionRecord:
        """approved -> executed with its result. A second call returns the first result. Raises NotFound, Conflict."""
        return self._become(decision, "executed", actor=actor, reason=reason, project=project, result=dict(result))

    def decision(self, decision: str, project: str | None = None) -> DecisionRecord:
        """One decision by id. Raises NotFound; Conflict where several projects have that id and none was named."""
        with self.read() as connection:
            found = _find(connection, decision, project)
        if found is None:
            raise NotFound(f"decision {decision!r}: no such decision; 'tidewheel status' lists those that wait")
        return found

    def decisions(
        self,
        project: str,
        *,
        kind: str | None = None,
        state: DecisionState | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> tuple[DecisionRecord, ...]:
        """Decisions with since_us <= as_of_us <= until_us by as-of time, oldest first unless asked otherwise."""
        table = schema.decisions
        query = sa.select(table).where(table.c.project == project)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if state is not None:
            query = query.where(table.c.state == state)
        if since_us is not None:
            query = query.where(table.c.as_of_us >= since_us)
        if until_us is not None:
            query = query.where(table.c.as_of_us <= until_us)
        order = (table.c.as_of_us.desc(), table.c.id.desc()) if newest_first else (table.c.as_of_us, table.c.id)
        with self.read() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit)).mappings().all()
        return tuple(_to_record(row) for row in rows)

    def _become(
        self,
        decision: str,
        state: DecisionState,
        *,
        actor: str,
        reason: str,
        project: str | None,
        result: dict[str, Any] | None = None,
    ) -> DecisionRecord:
        with self.write() as connection:
            found = _find(connection, decision, project, lock=True)
            if found is None:
                raise NotFound(f"decision {decision!r}: no such decision; 'tidewheel status' lists those that wait")
            if found.state == state:
                return found
            if state not in _MAY_BECOME[found.state]:
                allowed = " or ".join(_MAY_BECOME[found.state]) or "nothing else"
                raise Conflict(
                    f"decision {decision!r}: cannot become {state} (it is {found.state}); "
                    f"a decision that is {found.state} may become {allowed}"
                )
            change: dict[str, Any] = {
                "state": state,
                "actor": actor,
                "reason": reason,
                "changed_at_us": self.clock.now_us(),
            }
            if result is not None:
                change["result"] = canonical(result)
            table = schema.decisions
            same = (table.c.project == found.project, table.c.id == found.id)
            connection.execute(table.update().where(*same).values(**change))
            row = connection.execute(sa.select(table).where(*same)).mappings().one()
            _audit(connection, row, found.as_of_us)
            return _to_record(row)


def _find(
    connection: sa.Connection, decision: str, project: str | None, *, lock: bool = False
) -> DecisionRecord | None:
    table = schema.decisions
    query = sa.select(table).where(table.c.id == decision)
    if project is not None:
        query = query.where(table.c.project == project)
    if lock:  # one writer at a time decides what a decision becomes; SQLite has the whole file locked already
        connection.execute(sa.select(schema.chain_head).with_for_update()).one()
    rows = connection.execute(query).mappings().all()
    if len(rows) > 1:
        projects = ", ".join(sorted(row["project"] for row in rows))
        raise Conflict(f"decision {decision!r}: several projects have one ({projects}); name the project")
    return _to_record(rows[0]) if rows else None


def _audit(connection: sa.Connection, row: Mapping[Any, Any], as_of_us: int) -> None:
    append_entry(
        connection,
        project=row["project"],
        kind="decision",
        actor=row["actor"],
        as_of_us=as_of_us,
        recorded_at_us=row["changed_at_us"],
        reason=row["reason"],
        key=f"{row['id']}:{row['state']}",
        body={
            "id": row["id"],
            "kind": row["kind"],
            "action": row["action"],
            "state": row["state"],
            "result": json.loads(row["result"]) if row["result"] else None,
        },
    )


def _to_record(row: Mapping[Any, Any]) -> DecisionRecord:
    found = tuple(Finding(**finding) for finding in json.loads(row["findings"]))
    return DecisionRecord(
        project=row["project"],
        id=row["id"],
        kind=row["kind"],
        as_of_us=row["as_of_us"],
        decision=Decision(row["action"], found),
        state=row["state"],
        details=json.loads(row["details"]),
        actor=row["actor"],
        reason=row["reason"],
        result=json.loads(row["result"]) if row["result"] else None,
        recorded_at_us=row["recorded_at_us"],
        changed_at_us=row["changed_at_us"],
    )
