"""The hash chain: every entry carries the hash of the one before, so a changed, dropped or moved entry shows.

hash = sha256(prev_hash + canonical JSON of the entry without its hashes), hex; the first prev_hash is empty.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tidewheel.errors import ContractViolation
from tidewheel.journal import schema


@dataclass(frozen=True)
class Entry:
    """One line of the ledger. Times in microseconds UTC; ``recorded_at_us`` is wall clock, ``as_of_us`` event time."""

    seq: int
    project: str
    kind: str
    body: dict[str, Any]
    actor: str
    as_of_us: int | None
    reason: str
    key: str | None
    recorded_at_us: int
    prev_hash: str
    hash: str


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; infinities and NaN become null."""
    return json.dumps(_finite(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def entry_hash(row: Mapping[str, Any]) -> str:
    """Hash of a ledger row (a mapping with the columns of ``schema.ledger``)."""
    told = {
        name: row[name]
        for name in ("seq", "project", "kind", "actor", "as_of_us", "recorded_at_us", "reason", "key", "body")
    }
    return hashlib.sha256((row["prev_hash"] + canonical(told)).encode()).hexdigest()


def append_entry(connection: sa.Connection, **columns: Any) -> Entry:
    """Append inside a write transaction; ``columns`` are those of the ledger without seq and hashes, body a dict."""
    head = connection.execute(sa.select(schema.chain_head).with_for_update()).one()
    row = {**columns, "body": canonical(columns["body"]), "seq": head.seq + 1, "prev_hash": head.hash}
    row["hash"] = entry_hash(row)
    connection.execute(schema.ledger.insert().values(**row))
    connection.execute(schema.chain_head.update().values(seq=row["seq"], hash=row["hash"]))
    return to_entry(row)


def to_entry(row: Mapping[str, Any]) -> Entry:
    return Entry(**{**row, "body": json.loads(row["body"])})


def check_chain(connection: sa.Connection) -> int:
    """Recompute every hash; returns the number of entries. Raises ContractViolation at the first broken entry."""
    seq, previous = 0, ""
    rows = connection.execution_options(yield_per=1000).execute(sa.select(schema.ledger).order_by(schema.ledger.c.seq))
    for row in rows.mappings():
        seq += 1
        if row["seq"] != seq:
            raise ContractViolation(f"ledger entry {seq}: is missing (next is {row['seq']}); restore it from a backup")
        if row["prev_hash"] != previous or row["hash"] != entry_hash(dict(row)):
            raise ContractViolation(f"ledger entry {seq}: was changed after it was written; restore it from a backup")
        previous = row["hash"]
    head = connection.execute(sa.select(schema.chain_head)).one()
    if (head.seq, head.hash) != (seq, previous):
        raise ContractViolation(f"ledger entry {seq + 1}: is missing at the end (the head is entry {head.seq})")
    return seq
